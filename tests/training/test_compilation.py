"""Which shapes are compiled, and what is kept of it."""

import dataclasses
import pathlib

import pytest

from configs.models.mean_pooling import MeanPoolingRecipe
from data_pipelines.reading.batches import Batches
from sparsectr.process import compilation_cache
from sparsectr.training.compilation import Shape, worth_compiling
from tests.tiny_run import CONFIG, change, make_trainer


@pytest.fixture
def batches(tiny_store):
    config = dataclasses.replace(
        CONFIG.data, max_history=96, length_buckets=(32, 64)
    )
    return Batches(tiny_store, "train", config, 16, 0)


def _rows(batches, num_steps):
    """Returns the padded rows of each shape."""
    rows = {}
    for step in range(num_steps):
        batch = batches.batch(step)
        requests, length = batch["behavior_time"].shape
        width = batch["label"].shape[1]
        shape = Shape(length, width)
        rows[shape] = rows.get(shape, 0) + requests * (length + width)
    return rows


def test_shapes_that_have_enough_rows(batches):
    steps = 3 * batches.num_batches
    rows = _rows(batches, steps)
    assert len(rows) > 2
    for least in (0, *rows.values()):
        expected = {shape for shape, count in rows.items() if count >= least}
        assert worth_compiling(batches, steps, least) == expected
    assert not worth_compiling(batches, steps, max(rows.values()) + 1)


def test_of_a_long_run_some_steps_stand_for_all(batches, monkeypatch):
    counted = 5
    monkeypatch.setattr(
        "sparsectr.training.compilation._COUNTED_STEPS", counted
    )
    rows = _rows(batches, counted)
    shape, count = max(rows.items(), key=lambda item: item[1])
    steps = 10 * counted
    assert shape in worth_compiling(batches, steps, 10 * count)
    assert shape not in worth_compiling(batches, steps, 10 * count + 1)


@pytest.mark.parametrize(
    ("jit_compile", "least", "compiled"),
    [(True, 0, True), (True, 10**6, False), (False, 0, False)],
)
def test_the_run_compiles_those_alone(
    jit_compile, least, compiled, tiny_store, tmp_path, monkeypatch, capfd
):
    config = change(
        dataclasses.replace(CONFIG, model=MeanPoolingRecipe(embedding_dim=4)),
        "train",
        jit_compile=jit_compile,
        compile_least_rows=least,
        max_steps=3,
    )
    trainer = make_trainer(config, tiny_store, tmp_path / "run")
    asked = []
    step = trainer.train_step

    class Recorded:
        def __call__(self, batch, jit_compile):
            asked.append(jit_compile)
            return step(batch, jit_compile=False)

        def __getattr__(self, name):
            return getattr(step, name)

    monkeypatch.setattr(trainer, "train_step", Recorded())
    trainer.train()
    assert asked == [compiled] * 3
    said = capfd.readouterr().err.count("compiling for batches of")
    assert (said > 0) == compiled
    assert trainer.compile_seconds > 0
    assert trainer.train_seconds > 0


def test_a_cache_is_of_one_processor_and_version(
    tmp_path: pathlib.Path, monkeypatch
):
    monkeypatch.setenv("TF_XLA_FLAGS", "--before")
    path = compilation_cache.keep_compilations(tmp_path)
    assert path.is_dir()
    assert path.parent == tmp_path
    flags = compilation_cache.os.environ["TF_XLA_FLAGS"]
    assert flags == (
        f"--before --tf_xla_persistent_cache_directory={path} "
        "--tf_xla_persistent_cache_device_types=CPU"
    )
    monkeypatch.setattr(
        compilation_cache.metadata, "version", lambda name: "9.9"
    )
    assert compilation_cache.keep_compilations(tmp_path) != path
