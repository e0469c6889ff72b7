"""Local time in the graph against that of NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from sparsectr.ops.local_time import local_time
from sparsectr.time_zone import LATEST_TIME, TimeZone
from tests.test_time_zone import NAMES

ZONES = [
    TimeZone.fixed(330),
    *(TimeZone.named(name) for name in NAMES),
    TimeZone.named("Asia/Gaza"),  # changes a week apart
    TimeZone(name="daily", offsets=((0, 0), (2**17, 60), (2**17 + 86400, 7))),
    TimeZone(name="before", offsets=((-86400, 60), (0, 120))),
]


def _times(zone: TimeZone) -> np.ndarray:
    changes = np.array([start for start, _ in zone.offsets])
    times = (changes[:, None] + np.array([-1, 0, 1])).ravel()
    powers = 2 ** np.arange(32)
    random = np.random.default_rng(0).integers(0, LATEST_TIME, 997)
    times = np.concatenate([times, powers, powers - 1, random])
    return np.append(times[times >= 0], LATEST_TIME - 1)


@pytest.mark.parametrize("execution", ["eager", "graph", "xla"])
@pytest.mark.parametrize("zone", ZONES, ids=lambda zone: zone.name)
def test_equals_numpy(zone: TimeZone, execution: str) -> None:
    times = _times(zone)

    def function(time: tf.Tensor) -> tf.Tensor:
        return local_time(time, zone)

    if execution != "eager":
        signature = [tf.TensorSpec([None, None, 1], tf.int64)]
        is_xla = execution == "xla"
        function = tf.function(function, signature, jit_compile=is_xla)
    found = function(tf.constant(times[None, :, None]))
    assert found.dtype == tf.int64
    np.testing.assert_array_equal(found[0, :, 0], zone.local(times))


def test_times_out_of_range_are_finite() -> None:
    zone = TimeZone.named("Europe/Copenhagen")
    times = np.array([-(2**40), -1, LATEST_TIME, 2**40])
    found = ops.convert_to_numpy(local_time(times, zone))
    np.testing.assert_array_equal(found - times, [3600] * 4)


def test_a_fixed_zone_is_one_sum() -> None:
    zone = TimeZone.fixed(480)
    function = tf.function(
        lambda time: local_time(time, zone), [tf.TensorSpec([None], tf.int64)]
    )
    graph = function.get_concrete_function().graph
    found = [operation.type for operation in graph.get_operations()]
    assert found == ["Placeholder", "Const", "AddV2", "Identity"]
