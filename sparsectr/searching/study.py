"""Trials of one model on the validation, which Optuna chooses."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsectr.config import Config
from sparsectr.config_flags import flags_of
from sparsectr.errors import InputError
from sparsectr.file_systems.process_lock import ProcessLock
from sparsectr.searching.dimension import Dimension, with_values
from sparsectr.training.run_directory import RunDirectory

RESULT = "search.json"
"""What the search has found, rewritten after each trial."""

_JOURNAL = "study.log"


class Study:
    """A search in a folder, which can be stopped and gone on with.

    Every trial is a run of `--validation` in a folder of its own and a
    process of its own. The first has the values of the recipe, so that the
    best is never worse than what nobody searched. A trial that was stopped is
    gone on with, from its last checkpoint; of those that are done and are not
    the best the checkpoints are removed.

    Args:
        folder: Where it is, or will be.
        config: What every trial has in common; the model's recipe among it.
        data_dir: The store.
        space: What trials differ in.
        seed: Seed of the sampler. Runs have that of `config`.

    Raises:
        InputError: If Optuna is not installed, another process is at work on
            the folder, or it holds a search of other flags.
        OSError: If the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        data_dir: str,
        space: Sequence[Dimension],
        seed: int,
    ) -> None:
        self._optuna = _optuna()
        self._folder = folder
        self._config = config
        self._data_dir = data_dir
        self._space = space
        self._seed = seed
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = ProcessLock(folder / "lock", str(folder))
        self._asked = {
            "flags": flags_of(config),
            "tune": [_text(dimension) for dimension in space],
            "seed": seed,
        }
        self._check_same()
        journal = self._optuna.storages.journal
        self._study = self._optuna.create_study(
            storage=self._optuna.storages.JournalStorage(
                journal.JournalFileBackend(str(folder / _JOURNAL))
            ),
            study_name="search",
            direction="maximize",
            load_if_exists=True,
        )
        if not self._study.trials:
            usual = {each.flag: each.usual(config) for each in space}
            self._study.enqueue_trial(usual)

    def run(self, num_trials: int) -> dict[str, Any]:
        """Runs trials until there are so many.

        Args:
            num_trials: Those that are done already among them.

        Returns:
            What `RESULT` holds.

        Raises:
            InputError: If all trials have failed.
        """
        while len(self._done()) < num_trials:
            trial = self._stopped_trial() or self._next_trial()
            number = len(self._done()) + 1
            print(f"search: trial {number} of {num_trials}", file=sys.stderr)
            value = self._train(trial)
            state = self._optuna.trial.TrialState
            if value is None:
                self._study.tell(trial.number, state=state.FAIL)
            else:
                self._study.tell(trial.number, value)
            self._write()
        return self._write()

    def _done(self) -> list[Any]:
        return [
            trial for trial in self._study.trials if trial.state.is_finished()
        ]

    def _next_trial(self) -> Any:
        # The same one, whether the search was stopped before it or not.
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=self._seed + len(self._study.trials), n_startup_trials=5
        )
        trial = self._study.ask()
        for dimension in self._space:
            dimension.ask(trial)
        return trial

    def _stopped_trial(self) -> Any:
        """Returns the trial that the last process was at, if there is one."""
        running = self._optuna.trial.TrialState.RUNNING
        names = {dimension.flag for dimension in self._space}
        for trial in self._study.get_trials(states=(running,)):
            if trial.params.keys() == names:
                return trial
            # Stopped before it had its values.
            self._study.tell(
                trial.number, state=self._optuna.trial.TrialState.FAIL
            )
        return None

    def _workdir(self, trial: Any) -> Path:
        return self._folder / f"trial-{trial.number:03d}"

    def _train(self, trial: Any) -> float | None:
        """Returns the best AUC of a trial's run, `None` if it failed."""
        workdir = self._workdir(trial)
        if RunDirectory(workdir).exists:
            arguments = [f"--workdir={workdir}", "--resume"]
        else:
            config = with_values(self._config, trial.params)
            arguments = [
                *flags_of(config),
                f"--data_dir={self._data_dir}",
                f"--workdir={workdir}",
            ]
        # What it prints is no part of what the search has found.
        done = subprocess.run(
            [sys.executable, "-m", "sparsectr.train", *arguments],
            check=False,
            stdout=2,
        )
        if done.returncode < 0 or done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            print(
                f"search: the trial in {workdir} failed; see above",
                file=sys.stderr,
            )
            return None
        auc = RunDirectory(workdir).read_result()["metrics"]["auc"]
        return None if auc is None else float(auc)

    def _check_same(self) -> None:
        """Refuses a folder with a search of something else."""
        file = self._folder / RESULT
        if not file.exists():
            self._begin()
            return
        before = json.loads(file.read_text("utf-8"))["asked"]
        for name, value in self._asked.items():
            if before.get(name) != value:
                raise InputError(
                    f"{self._folder} holds a search with {name} "
                    f"{before.get(name)}, not {value}: name another --folder."
                )

    def _begin(self) -> None:
        RunDirectory(self._folder).write_json(
            RESULT, {"asked": self._asked, "trials": []}
        )

    def _write(self) -> dict[str, Any]:
        """Writes what is known; keeps no checkpoints but the best ones."""
        state = self._optuna.trial.TrialState
        done = self._done()
        complete = [t for t in done if t.state == state.COMPLETE]
        if not complete:
            if len(done) >= 3:
                raise InputError(
                    f"The first {len(done)} trials in {self._folder} failed; "
                    "see above."
                )
            return {}
        best = max(complete, key=lambda trial: trial.value or 0.0)
        for trial in done:
            if trial is not best:
                shutil.rmtree(
                    self._workdir(trial) / "checkpoints", ignore_errors=True
                )
        result = RunDirectory(self._workdir(best)).read_result()
        found = {
            "asked": self._asked,
            "model": self._config.model.name,
            "content": result["data_source"]["content"],
            "trials": [
                {
                    "number": trial.number,
                    "values": trial.params,
                    "auc": trial.value,
                    **self._cost(trial),
                }
                for trial in done
            ],
            "best": {
                "number": best.number,
                "values": best.params,
                "auc": best.value,
                "workdir": str(self._workdir(best)),
            },
            "final_run": result["final_run"],
        }
        RunDirectory(self._folder).write_json(RESULT, found)
        return found

    def _cost(self, trial: Any) -> dict[str, Any]:
        result = RunDirectory(self._workdir(trial)).read_result()
        names = ("train_seconds", "compile_seconds", "best_step", "num_steps")
        return {name: result[name] for name in names if name in result}


def _text(dimension: Dimension) -> str:
    if dimension.choices:
        return f"{dimension.flag}={','.join(map(str, dimension.choices))}"
    return f"{dimension.flag}={dimension.low:g}:{dimension.high:g}"


def _optuna() -> Any:
    """Returns Optuna, silent.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError(
            "A search needs Optuna, which the extra `search` installs: "
            "pip install 'sparsectr[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
