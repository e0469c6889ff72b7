"""Scores from a SavedModel, in this process."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.raw_tensors import PROBABILITY
from data_pipelines.requests.tensor_type import Array, TensorType
from sparsectr.errors import InputError
from sparsectr.process.quiet_tensorflow import reason_of

_SIGNATURE = "serving_default"


class SavedModelScorer:
    """A version that `export.saved_model` wrote.

    Args:
        path: Folder of the version.

    Attributes:
        inputs: The inputs of a request.
        buckets: The shapes that the version was warmed up with.

    Raises:
        InputError: If it is none, or cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        if not (path / "saved_model.pb").is_file():
            raise InputError(
                f"{path} is no version of a SavedModel: it has no "
                "saved_model.pb. Versions are the numbered folders of a model."
            )
        self.buckets = Buckets.read(path / "assets.extra" / "signature.json")
        try:
            # Kept: what is loaded goes with it.
            self._loaded = tf.saved_model.load(str(path))
            self._function = self._loaded.signatures[_SIGNATURE]
        except tf.errors.OpError as error:
            raise InputError(
                f"{path} cannot be loaded: {reason_of(error)}"
            ) from error
        except KeyError as error:
            raise InputError(f"{path} has no signature {error}.") from error
        _, specs = self._function.structured_input_signature
        self.inputs = {
            name: TensorType(
                spec.dtype.name, tuple(size or -1 for size in spec.shape)
            )
            for name, spec in specs.items()
        }

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Returns the probabilities of a padded batch, float32 `[B, C]`."""
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        return np.asarray(self._function(**tensors)[PROBABILITY])
