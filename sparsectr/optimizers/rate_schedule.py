"""The learning rate of each step of a run."""

import math
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="sparsectr")
class RateSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that warms up, and then stays or falls to zero.

    With n steps done, W of warm-up and N of the run, the next step takes

        r (n + 1) / W                              if n < W
        r                                          else, without N
        r (1 + cos(pi (n - W) / (N - W))) / 2      else

    so that step W is the first at full rate, and a step N + 1 would take 0.
    It is a function of n alone: a resumed run goes on with it. A run whose
    optimizer has steps of another one behind it counts n from its own first.

    Args:
        rate: The highest rate r.
        warmup_steps: W; 0 for none.
        num_steps: N; `None` to stay at r.
        first_step: Steps of the optimizer at which n is 0.

    Call arguments:
        step: n and `first_step`, an integer scalar.

    Returns:
        float32 scalar.

    Raises:
        ValueError: If the warm-up is not shorter than the run.
    """

    def __init__(
        self,
        rate: float,
        warmup_steps: int = 0,
        num_steps: int | None = None,
        first_step: int = 0,
    ) -> None:
        if num_steps is not None and warmup_steps >= num_steps:
            raise ValueError(
                f"`warmup_steps` must be below num_steps={num_steps}. "
                f"Received: warmup_steps={warmup_steps}"
            )
        self.rate = rate
        self.warmup_steps = warmup_steps
        self.num_steps = num_steps
        self.first_step = first_step

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate of the step after so many."""
        done = tf.cast(step - self.first_step, tf.float32)
        rate = tf.constant(self.rate, tf.float32)
        later = rate
        if self.num_steps is not None:
            length = self.num_steps - self.warmup_steps
            part = tf.clip_by_value((done - self.warmup_steps) / length, 0, 1)
            later = rate * 0.5 * (1.0 + tf.cos(math.pi * part))
        if not self.warmup_steps:
            return later
        warm = rate * (done + 1.0) / self.warmup_steps
        return tf.where(done < self.warmup_steps, warm, later)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the schedule."""
        return {
            "rate": self.rate,
            "warmup_steps": self.warmup_steps,
            "num_steps": self.num_steps,
            "first_step": self.first_step,
        }
