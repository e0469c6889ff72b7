"""The calibration of a run, as operations of a graph."""

import math
from typing import Any

import tensorflow as tf

from sparsectr.calibration import FILE, Calibration
from sparsectr.errors import InputError
from sparsectr.training.load_model import TrainedModel
from sparsectr.training.run_directory import RunDirectory


def read_calibration(
    run: RunDirectory, trained: TrainedModel
) -> Calibration | None:
    """Returns the calibration of a run, if it has one.

    Raises:
        InputError: If it is damaged, or for other weights than the newest.
    """
    path = run.path / FILE
    if not path.exists():
        return None
    found = Calibration.from_json(path.read_text("utf-8"), str(path))
    if found.step != trained.step:
        raise InputError(
            f"{path} is for the weights of step {found.step}, and the newest "
            f"are of step {trained.step}: fit it anew by python -m "
            "sparsectr.recalibrate, or remove it."
        )
    return found


def served_probability(
    logits: Any, calibration: Calibration | None, negative_rate: float
) -> Any:
    """Returns the probability of a click, float32.

    Args:
        logits: Of a model that learned from a log, any shape.
        calibration: What becomes of them; `None` for nothing.
        negative_rate: Share of the negatives that the log has. The odds among
            all that was shown are as much smaller.
    """
    logits = tf.cast(calibrated(logits, calibration), tf.float32)
    if negative_rate < 1.0:
        logits += math.log(negative_rate)
    return tf.sigmoid(logits)


def calibrated(logits: Any, calibration: Calibration | None) -> Any:
    """Returns what `calibration` makes of logits of any shape, float32."""
    if calibration is None:
        return logits
    knots, start, value, slope = map(tf.constant, calibration.pieces())
    logits = tf.cast(logits, tf.float32)
    piece = tf.searchsorted(knots, tf.reshape(logits, [-1]), side="right")
    piece = tf.reshape(piece, tf.shape(logits))
    from_start = logits - tf.gather(start, piece)
    return tf.gather(value, piece) + tf.gather(slope, piece) * from_start
