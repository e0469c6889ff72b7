"""The loop traces once for all shapes, and reads no more than the loss."""

import collections
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import tensorflow as tf

from configs.models.mean_pooling import MeanPoolingRecipe
from data_pipelines.stores.store import Store
from sparsectr.models.mean_pooling import MeanPooling
from tests.tiny_run import CONFIG, change, make_trainer

READS = ("numpy", "__array__", "__bool__", "__float__", "__index__", "__int__")
"""What brings a tensor's values to Python."""


def _config() -> Any:
    """Three padded lengths; nothing is logged or saved before the end."""
    config = change(
        dataclasses.replace(CONFIG, model=MeanPoolingRecipe(embedding_dim=4)),
        "data",
        max_history=96,
        length_buckets=(32, 64),
        candidate_buckets=(64,),
    )
    return change(
        config,
        "train",
        epochs=2,
        eval_batch_size=16,
        log_every=10**6,
        checkpoint_every=10**6,
    )


class Watched(NamedTuple):
    """What a run of two epochs and two evaluations did.

    Attributes:
        trained: Shape of the times of every batch, in order.
        num_traces: What the training step counts.
        traced: Shape of the times, at each trace of the model in training.
        evaluated: Likewise, at each trace in one of the evaluations.
        reads: For each step, what the host read since the one before: name
            of the method and shape of the tensor.
    """

    trained: list[tuple[int, ...]]
    num_traces: int
    traced: list[tuple[int | None, ...]]
    evaluated: list[list[tuple[int | None, ...]]]
    reads: list[list[tuple[str, tuple[int, ...]]]]


@pytest.fixture(scope="module")
def watched(
    tiny_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    with pytest.MonkeyPatch.context() as patch:
        traced = _record_traces(patch)
        folder = tmp_path_factory.mktemp("watched") / "run"
        trainer = make_trainer(_config(), tiny_store, folder)
        step = trainer.train_step
        trained = []
        reads: list[list[Any]] = [[]]

        class Recorded:
            """The step, and a note of each batch before it."""

            loss, auc, reset_metrics = step.loss, step.auc, step.reset_metrics

            def __call__(self, batch: Any, jit_compile: bool) -> Any:
                trained.append(tuple(batch["behavior_time"].shape))
                reads.append([])
                return step(batch, jit_compile)

        trainer.train_step = Recorded()
        with pytest.MonkeyPatch.context() as patch_reads:
            _record_reads(patch_reads, lambda read: reads[-1].append(read))
            trainer.train()
        in_training = list(traced)
        evaluated = []
        for _ in range(2):
            traced.clear()
            trainer.evaluate("train")
            evaluated.append(list(traced))
    # What is read after the last step is the check of the whole run.
    return Watched(trained, step.num_traces, in_training, evaluated, reads[:-1])


def _record_traces(patch: pytest.MonkeyPatch) -> list[Any]:
    traced = []
    call = MeanPooling.call

    def recorded(self: Any, inputs: Any, training: bool = False) -> Any:
        traced.append(tuple(inputs["behavior_time"].shape))
        return call(self, inputs, training=training)

    patch.setattr(MeanPooling, "call", recorded)
    return traced


def _record_reads(
    patch: pytest.MonkeyPatch, record: Callable[[Any], None]
) -> None:
    tensor_type = type(tf.constant(0.0))
    main = threading.get_ident()

    def recorded(name: str) -> Any:
        read = getattr(tensor_type, name)

        def recorded_read(tensor: Any, *args: Any, **named: Any) -> Any:
            # tf.data gathers batches in a thread of its own.
            if threading.get_ident() == main:
                record((name, tuple(tensor.shape)))
            return read(tensor, *args, **named)

        return recorded_read

    for name in READS:
        patch.setattr(tensor_type, name, recorded(name))


def test_the_model_is_traced_once(watched: Watched) -> None:
    counts = collections.Counter(watched.trained)
    assert set(counts) == {(16, 32), (16, 64), (16, 96)}
    # Twice at least: it is the second time that nothing may be traced.
    assert min(counts.values()) >= 2
    assert watched.traced == [(16, None)]
    # What is around it, for the first shape and then for all.
    assert watched.num_traces == 2


def test_an_evaluation_is_traced_once(watched: Watched) -> None:
    # All three lengths at once, and nothing the second time.
    assert watched.evaluated == [[(16, None)], []]


def test_the_host_reads_one_loss_a_step(watched: Watched) -> None:
    # The loss of a step is read after the next one has been given to the
    # device, which so never waits; nothing is read besides, but for the first
    # step of each shape, whose time is counted apart.
    assert len(watched.reads) == len(watched.trained) > 10
    one = [("__float__", ())]
    expected, known = [[]], set()
    for step, shape in enumerate(watched.trained):
        is_new = shape not in known
        known.add(shape)
        expected.append((one if is_new else []) + (one if step else []))
    assert watched.reads == expected[:-1]
