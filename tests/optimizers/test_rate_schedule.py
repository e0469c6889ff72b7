"""The learning rate of each step, against the equation in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.optimizers.rate_schedule import RateSchedule

RATE = 0.03


def _expected(warmup_steps: int, num_steps: int | None, last: int) -> list:
    rates = []
    for step in range(1, last + 1):  # as people count them
        if step <= warmup_steps:
            rates.append(RATE * step / warmup_steps)
        elif num_steps is None:
            rates.append(RATE)
        else:
            done = (step - 1 - warmup_steps) / (num_steps - warmup_steps)
            rates.append(RATE * np.cos(min(done, 1.0) * np.pi / 2) ** 2)
    return rates


@pytest.mark.parametrize(
    ("warmup_steps", "num_steps"),
    [(0, None), (5, None), (0, 11), (5, 11), (10, 11)],
)
def test_equals_the_equation(warmup_steps, num_steps):
    schedule = RateSchedule(RATE, warmup_steps, num_steps)
    rate = tf.function(schedule, autograph=False)
    found = [rate(tf.constant(n, tf.int64)).numpy() for n in range(13)]
    expected = _expected(warmup_steps, num_steps, 13)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
    assert all(value.dtype == np.float32 for value in found)
    assert found[warmup_steps] == np.float32(RATE)
    if num_steps is not None:
        # It falls from step to step, is above 0 in the last, and stays at 0.
        assert (np.diff(found[warmup_steps:12]) < 0).all()
        assert found[10] > 1e-4
        assert found[11] == found[12] == pytest.approx(0, abs=1e-9)


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="`warmup_steps` must be below num_st"):
        RateSchedule(RATE, 7, 7)


def test_config_makes_the_same_schedule():
    schedule = RateSchedule(RATE, 3, 11)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert type(again) is RateSchedule
    assert again.get_config() == schedule.get_config()
