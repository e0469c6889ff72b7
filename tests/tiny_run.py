"""The smallest run there is: a synthetic store, a tiny model, few steps."""

import atexit
import dataclasses
import functools
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import keras
import pytest
import tensorflow as tf

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.prepare import prepare
from data_pipelines.stores.store import Store
from data_pipelines.stores.store_identity import StoreIdentity
from data_pipelines.synthetic_alibaba import write_sample
from sparsectr.config import Config, DataConfig, TrainConfig
from sparsectr.training.devices import make_strategy
from sparsectr.training.run_directory import RunDirectory
from sparsectr.training.trainer import Trainer
from tests.commands import ForkedCommands, run
from tests.made_once import made_once

CONFIG = Config(
    dataset="alibaba",
    model=SparseCTRRecipe(width=8, num_heads=2, embedding_dim=4, num_chunks=3),
    data=DataConfig(
        max_history=32, length_buckets=(32,), candidate_buckets=(4, 16, 64)
    ),
    train=TrainConfig(
        batch_size=16,
        eval_batch_size=32,
        jit_compile=False,
        log_every=1,
        checkpoint_every=4,
    ),
)

FLAGS = (
    "--dataset=alibaba",
    "--model.width=8",
    "--model.num_heads=2",
    "--model.embedding_dim=4",
    "--model.num_chunks=3",
    "--data.max_history=32",
    "--data.length_buckets=32",
    "--data.candidate_buckets=4,16,64",
    "--batch_size=16",
    "--learning_rate=0.001",
    "--nojit_compile",
    "--log_every=1",
    "--checkpoint_every=4",
)
"""The command line of `CONFIG`."""

FINISHED_FLAGS = (
    *FLAGS,
    "--epochs=2",
    "--model.num_blocks=1",
    "--model.dropout_rate=0.25",
)

NUM_USERS = 80


class FinishedRun(NamedTuple):
    """What `python -m sparsectr.train` printed and left behind."""

    path: pathlib.Path
    stdout: str
    stderr: str

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.path)


def change(config: Config, part: str, **values: Any) -> Config:
    """Returns a copy with other values in its model, data or train part."""
    changed = dataclasses.replace(getattr(config, part), **values)
    return dataclasses.replace(config, **{part: changed})


def make_trainer(config: Config, store: Store, folder: pathlib.Path) -> Trainer:
    """Returns a trainer of a new run, seeded like the command."""
    keras.utils.set_random_seed(config.train.seed)
    run_directory = RunDirectory(folder)
    run_directory.create(config, StoreIdentity.of(store), store.path)
    return Trainer(config, store, run_directory, make_strategy(1))


def logged(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl` in the folder of a run."""
    text = (path / "metrics.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def saved_state(
    path: pathlib.Path, folder: str = "checkpoints"
) -> dict[str, Any]:
    """Returns all variables of the newest checkpoint in a folder of a run."""
    reader = tf.train.load_checkpoint(str(path / folder))
    names = reader.get_variable_to_shape_map()
    # A protocol buffer, whose bytes have no fixed order.
    return {
        name: reader.get_tensor(name)
        for name in names
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def _make_store(folder: pathlib.Path) -> None:
    write_sample(folder / "raw", num_users=NUM_USERS, seed=3)
    # Where the command looks when nothing names a store.
    (folder / "data").mkdir()
    prepare("alibaba", folder / "raw", folder / "data" / "alibaba_synthetic")


def _train(folder: pathlib.Path) -> None:
    """Leaves a finished run, and what it printed."""
    flags = (*FINISHED_FLAGS, "--workdir=finished/run")
    done = run("sparsectr.train", *flags, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)


@functools.cache
def _commands(folder: pathlib.Path) -> ForkedCommands:
    commands = ForkedCommands(folder)
    atexit.register(commands.close)
    return commands


@functools.cache
def _finished_run(folder: pathlib.Path, made: pathlib.Path) -> FinishedRun:
    path = folder / "finished"
    shutil.copytree(made / "run", path)
    for origin in path.glob("saved_model/1/assets.extra/origin.json"):
        text = origin.read_text()
        origin.write_text(text.replace(str(made / "run"), str(path)))
    return FinishedRun(
        path, (made / "stdout").read_text(), (made / "stderr").read_text()
    )


# Imported by the conftest.py of several folders: the caches make each of them
# once for all, `made_once` once for all processes of pytest-xdist.


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder of the tiny runs, and where the commands run."""
    made = made_once(tmp_path_factory, "tiny", _make_store)
    folder = tmp_path_factory.getbasetemp() / "runs"
    if not folder.exists():
        folder.mkdir()
        for name in ("raw", "data"):
            (folder / name).symlink_to(made / name)
    return folder


@pytest.fixture(scope="session")
def tiny_store(tiny_folder: pathlib.Path) -> Store:
    return Store((tiny_folder / "data").resolve() / "alibaba_synthetic")


@pytest.fixture(scope="session")
def command(tiny_folder: pathlib.Path) -> ForkedCommands:
    return _commands(tiny_folder)


@pytest.fixture(scope="session")
def finished_run(
    tiny_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> FinishedRun:
    """A run of the command from start to SavedModel, in a fresh process."""
    made = made_once(tmp_path_factory, "tiny/finished", _train)
    return _finished_run(tiny_folder, made)
