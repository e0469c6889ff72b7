"""TensorFlow without its notes to its own developers."""

import os
import re


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow with warnings and notes off, errors on.

    What it prints otherwise (kernels it was built with, how it renames
    tensors, that a step was traced for a second length) would bury the lines
    that a user reads.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf
    from absl import logging

    tf.get_logger().setLevel("ERROR")
    logging.set_verbosity(logging.ERROR)


def reason_of(error: Exception) -> str:
    """Returns what an error of TensorFlow says, in one line.

    Its name of the operation that failed is left out, and so is its stack.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\{\{.*?\}\}\s*", "", lines[0])
