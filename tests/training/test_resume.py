"""A run that is stopped goes on as if it never had been."""

import json
import os
import pathlib
import platform
import shutil
import signal
import time

import numpy as np
import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.file_systems.process_lock import ProcessLock
from sparsectr.training.run_directory import RunDirectory
from tests.commands import ForkedCommands, assert_refused, start
from tests.tiny_run import CONFIG, FINISHED_FLAGS, logged, saved_state

EVERY = 4
"""Steps between the checkpoints of `FINISHED_FLAGS`."""


def _is_between_checkpoints(path: pathlib.Path) -> bool:
    """Whether steps were done since a checkpoint that is on disk."""
    log, newest = path / "metrics.jsonl", path / "checkpoints" / "checkpoint"
    if not (log.exists() and newest.exists()):
        return False
    done = log.read_text().count("\n")
    return done % EVERY > 0 and f'"ckpt-{done - done % EVERY}"' in (
        newest.read_text()
    )


def _kill_between_checkpoints(path: pathlib.Path, folder: pathlib.Path) -> int:
    """Runs the command and kills it.

    Returns:
        The number of steps in its log.
    """
    with start(
        "sparsectr.train",
        *FINISHED_FLAGS,
        f"--workdir={path}",
        "--noexport",
        cwd=folder,
    ) as process:
        while process.poll() is None:
            # Looked at while it stands still, so that it is killed where it
            # was seen.
            os.kill(process.pid, signal.SIGSTOP)
            if _is_between_checkpoints(path):
                process.kill()
                process.communicate()
                return len(logged(path))
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.005)
        pytest.fail(f"It ended before it was killed: {process.communicate()}")


@pytest.fixture(scope="module")
def resumed(tiny_folder, tiny_store, finished_run, command):
    """A run that was killed and resumed; steps in its log at the kill."""
    path = tiny_folder / "killed"
    done = _kill_between_checkpoints(path, tiny_folder)
    with (path / "metrics.jsonl").open("a") as log:
        log.write('{"time": 1795366880.0, "ste')  # as a kill may leave it
    resume = command(
        "sparsectr.train", f"--workdir={path}", "--resume", "--noexport"
    )
    assert resume.returncode == 0, resume.stderr
    return path, done


def test_was_killed_on_its_way(resumed):
    _, done = resumed
    assert EVERY < done < 54
    assert done % EVERY


def test_weights_equal_those_of_an_unbroken_run(resumed, finished_run):
    path, _ = resumed
    expected, found = saved_state(finished_run.path), saved_state(path)
    assert found.keys() == expected.keys()
    # Weights and both moments of each, seeds of dropout, metrics, step.
    assert sum(name.startswith("optimizer/") for name in found) > 80
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_log_equals_that_of_an_unbroken_run(resumed, finished_run):
    path, _ = resumed

    def without_times(path):
        lines = logged(path)
        for line in lines:
            del line["time"]
            line.pop("seconds", None)
            line.pop("compile_seconds", None)
        return lines

    assert without_times(path) == without_times(finished_run.path)


def test_seconds_go_on(resumed):
    path, _ = resumed
    seconds = [line["seconds"] for line in logged(path)[:-1]]
    assert seconds == sorted(seconds)


def test_result_equals_that_of_an_unbroken_run(resumed, finished_run):
    path, _ = resumed
    expected = finished_run.run.read_result()
    found = finished_run._replace(path=path).run.read_result()
    for name in ("metrics", "num_parameters", "split", "data_source"):
        assert found[name] == expected[name]


def test_resume_of_a_finished_run_changes_nothing(
    finished_run, command: ForkedCommands
):
    def state():
        files = finished_run.path.glob("checkpoints/*")
        result = finished_run.run.read_result()
        for name in (
            "train_seconds",
            "compile_seconds",
            "requests_per_second",
        ):
            del result[name]
        del result["peak_memory_bytes"]
        lines = logged(finished_run.path)
        lines[-1].pop("time")
        return {path: path.read_bytes() for path in files}, result, lines

    result = finished_run.run.read_result()
    # As `evaluate --frozen_history` does.
    finished_run.run.add_to_result("metrics_frozen_history", {"auc": 0.5})
    before = state()
    done = command(
        "sparsectr.train",
        f"--workdir={finished_run.path}",
        "--resume",
        "--noexport",
    )
    assert done.returncode == 0, done.stderr
    assert state() == before
    # The run is other tests' too.
    finished_run.run.write_json("result.json", result)


@pytest.mark.parametrize("dataset", [(), ("--dataset=alibaba",)])
def test_resume_with_other_flags_is_refused(dataset, finished_run, command):
    done = command(
        "sparsectr.train",
        *dataset,
        f"--workdir={finished_run.path}",
        "--resume",
        "--learning_rate=0.5",
        "--batch_size=16",
        "--model.num_chunks=4",
    )
    assert_refused(
        done,
        f"--resume cannot change a run: {finished_run.path} has "
        "--model.num_chunks=3, not 4; --learning_rate=0.001, not 0.5. ",
    )
    assert "batch_size" not in done.stderr


def test_flags_of_a_resumed_run_are_those_of_its_model(command, tmp_path):
    config = Config(dataset="kuairand", model=MeanPoolingRecipe(width=8))
    (tmp_path / "config.json").write_text(
        json.dumps({"data_dir": "data", **config.to_dict()})
    )
    resume = ("sparsectr.train", f"--workdir={tmp_path}", "--resume")
    for flag in ("--model.num_chunks=3", "--model.preset=sparsity-1"):
        done = command(*resume, flag)
        assert_refused(done, "model.", "It is one of ", "sparse_ctr")
    done = command(*resume, "--model.width=8", "--print_config")
    assert Config.from_dict(json.loads(done.stdout)) == config
    done = command(*resume, "--dataset=alibaba", "--model.width=9")
    assert_refused(
        done, "--dataset=kuairand, not alibaba", "--model.width=8, not 9"
    )
    done = command(*resume, "--model.name=sparse_ctr", "--model.num_chunks=4")
    assert_refused(done, "--model.name=mean_pooling, not sparse_ctr")


def test_one_process_at_a_time(finished_run, command, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished_run.path, path)
    resume = ("sparsectr.train", f"--workdir={path}", "--resume", "--noexport")
    before = (path / "metrics.jsonl").read_bytes()
    owner = RunDirectory.to_train(path, resume=True)
    done = command(*resume)
    said = f"Process {os.getpid()} on {platform.node()} is at work on {path}"
    assert_refused(done, said)
    assert (path / "metrics.jsonl").read_bytes() == before
    # Who only looks may look.
    assert command("sparsectr.evaluate", f"--workdir={path}").returncode == 0
    # It goes with its owner, even one that is killed, and says the next one.
    del owner
    assert command(*resume).returncode == 0
    assert str(os.getpid()) not in (path / "lock").read_text()


def test_two_runs_cannot_begin_in_one_folder(tiny_store, tmp_path):
    store = StoreIdentity.of(tiny_store)
    first, second = (
        RunDirectory.to_train(tmp_path / "run", resume=False) for _ in range(2)
    )
    # Another process is about to begin one.
    (tmp_path / "run").mkdir()
    other = ProcessLock(tmp_path / "run" / "lock", "it")
    with pytest.raises(InputError, match="is at work on"):
        first.create(CONFIG, store, tiny_store.path)
    assert not first.exists
    other.close()
    first.create(CONFIG, store, tiny_store.path)
    with pytest.raises(InputError, match="holds a run already"):
        second.create(CONFIG, store, tiny_store.path)


def test_resume_without_a_folder_is_refused(command):
    done = command("sparsectr.train", "--dataset=alibaba", "--resume")
    assert_refused(done, "--resume needs the --workdir")


def test_resume_of_no_run_is_refused(tmp_path, command):
    done = command("sparsectr.train", f"--workdir={tmp_path}", "--resume")
    assert_refused(done, f"{tmp_path} is not a run: no config.json")


def test_existing_run_is_not_overwritten(finished_run, command):
    done = command(
        "sparsectr.train", *FINISHED_FLAGS, f"--workdir={finished_run.path}"
    )
    assert_refused(done, f"{finished_run.path} holds a run already", "--resume")
