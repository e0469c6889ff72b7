"""The loss curve of a tiny model, step by step, as it was once.

It moves when the model, the data or their order does. If it was meant to,

    python -m tests.training.test_golden_curve

writes it anew.
"""

import json
import pathlib
import tempfile
from typing import Any

import numpy as np
import pytest

from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import write_sample
from sparsectr.config import Config
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from tests.commands import assert_refused, run
from tests.tiny_run import (
    CONFIG,
    FLAGS,
    NUM_USERS,
    change,
    logged,
    make_trainer,
    saved_state,
)

FILE = pathlib.Path(__file__).parent.parent / "golden" / "loss_curve.json"
NUM_STEPS = 10


OPTIMIZER = {
    "embedding_learning_rate": 3e-3,
    "learning_rate_schedule": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "embedding_weight_decay": 0.3,
    "clip_norm": 0.2,
    "ema_decay": 0.8,
}
"""Everything that the optimizer can do."""


def _train(
    store: Store, folder: pathlib.Path, config: Config = CONFIG, **values: Any
) -> Trainer:
    # Small evaluation batches: each of two devices gets requests.
    values = {"max_steps": NUM_STEPS, "eval_batch_size": 32, **values}
    config = change(config, "train", **values)
    trainer = make_trainer(config, store, folder)
    trainer.train()
    return trainer


def _curve(folder: pathlib.Path) -> list[float]:
    """Returns the running mean loss after each step."""
    return [line["loss"] for line in logged(folder)]


def test_loss_curve(tiny_store, tmp_path):
    _train(tiny_store, tmp_path / "run")
    expected = json.loads(FILE.read_text("utf-8"))
    # Rounding differs between processors.
    np.testing.assert_allclose(_curve(tmp_path / "run"), expected, rtol=1e-4)


@pytest.fixture(scope="module")
def one_device(tiny_store, tmp_path_factory):
    """A run with everything that the optimizer can do: trainer and folder."""
    folder = tmp_path_factory.mktemp("one_device") / "run"
    small = change(CONFIG, "model", num_blocks=1, dropout_rate=0.25)
    return _train(tiny_store, folder, small, **OPTIMIZER), folder


@pytest.fixture(scope="module")
def two_devices(tiny_folder, tiny_store, command):
    """The same on two: its folder, and what the command printed."""
    # In a process of its own: a CPU is divided before anything runs.
    path = tiny_folder / "two_devices"
    done = command(
        "sparsectr.train",
        *FLAGS,
        *(f"--{name}={value}" for name, value in OPTIMIZER.items()),
        "--model.num_blocks=1",
        "--model.dropout_rate=0.25",
        f"--data_dir={tiny_store.path}",
        f"--workdir={path}",
        f"--max_steps={NUM_STEPS}",
        "--eval_batch_size=32",
        "--num_devices=2",
        "--noexport",
    )
    assert done.returncode == 0, done.stderr
    return path, done.stdout


@pytest.fixture(scope="module")
def two_workers(tiny_folder, tiny_store):
    """The same by two processes, as two hosts would do it."""
    path = tiny_folder / "two_workers"
    done = run(
        "sparsectr.launch_local",
        "--workers=2",
        "--",
        *FLAGS,
        *(f"--{name}={value}" for name, value in OPTIMIZER.items()),
        "--model.num_blocks=1",
        "--model.dropout_rate=0.25",
        f"--data_dir={tiny_store.path}",
        f"--workdir={path}",
        f"--max_steps={NUM_STEPS}",
        "--eval_batch_size=32",
        "--noexport",
        cwd=tiny_folder,
    )
    assert done.returncode == 0, done.stderr
    return path, done.stdout


@pytest.fixture(params=["two_devices", "two_workers"])
def two(request):
    """The folder of each of these runs, and what the command printed."""
    return request.getfixturevalue(request.param)


def test_two_give_the_weights_of_one(one_device, two):
    expected, found = saved_state(one_device[1]), saved_state(two[0])
    assert found.keys() == expected.keys()
    parts = ("model/", "optimizer/", "average/")
    names = [n for n in expected if n.startswith(parts)]
    assert len(names) > 140
    for name in names:
        # The replicas' gradients are added in another order. Adam divides a
        # gradient by its own size, so that the rounding of one close to zero
        # shows in a weight: never more than a fraction of one update, 1e-3.
        # The moments show the size of the gradients, which Adam hides.
        size = np.abs(expected[name]).max() if "optimizer/" in name else 0.01
        np.testing.assert_allclose(
            found[name],
            expected[name],
            rtol=1e-4,
            atol=5e-4 * size,
            err_msg=name,
        )


def test_two_give_the_metrics_of_one(one_device, two):
    trainer, folder = one_device
    *steps, last = logged(two[0])
    for ours, theirs in zip(logged(folder), steps, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        auc = pytest.approx(ours["running_auc"], abs=1e-3)
        assert theirs["running_auc"] == auc
    # Evaluation: nothing lost, nothing twice, each score at its label.
    for name, value in trainer.evaluate().to_dict().items():
        assert last[name] == pytest.approx(value, rel=1e-3), name
    # What is evaluated is the average, and it says so.
    assert "Weights: average with decay 0.8\n" in two[1]
    result = RunDirectory(two[0]).read_result()
    assert result["weights"] == "average with decay 0.8"


def test_the_chief_alone_writes(two_workers):
    path, stdout = two_workers
    assert stdout.count("[Metrics] AUC") == 1
    result = RunDirectory(path).read_result()
    assert result["num_workers"] == 2
    assert len(logged(path)) == NUM_STEPS + 1
    saved = {file.stem for file in path.glob("checkpoints/ckpt-*.index")}
    assert saved == {"ckpt-8", "ckpt-10"}


def test_learning_rates_on_two_devices(one_device, two_devices):
    *steps, _ = logged(two_devices[0])
    rates = [line["learning_rate"] for line in steps]
    assert rates == [line["learning_rate"] for line in logged(one_device[1])]
    angles = np.arange(NUM_STEPS - 2) * np.pi / (NUM_STEPS - 2)
    falling = 1e-3 * (1 + np.cos(angles)) / 2
    assert rates == pytest.approx([0.5e-3, 1e-3, *falling], rel=1e-5)
    tables = [line["embedding_learning_rate"] for line in steps]
    assert tables == pytest.approx([3 * rate for rate in rates])


def test_batch_must_be_divided_among_devices(tiny_folder, tiny_store, command):
    done = command(
        "sparsectr.train",
        *FLAGS,
        f"--data_dir={tiny_store.path}",
        f"--workdir={tiny_folder / 'indivisible'}",
        "--batch_size=17",
        "--num_devices=2",
    )
    assert_refused(done, "--batch_size=17 cannot be divided among 2 devices")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        write_sample(base / "raw", num_users=NUM_USERS, seed=3)
        _train(prepare("alibaba", base / "raw", base / "store"), base / "run")
        curve = _curve(base / "run")
    FILE.write_text(json.dumps(curve, indent=2) + "\n", "utf-8")
    print(f"wrote {FILE}")
