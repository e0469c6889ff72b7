"""Scores from the folder of a run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.raw_tensors import request_types
from data_pipelines.requests.tensor_type import Array
from data_pipelines.stores.store import Store
from sparsectr.calibration import Calibration
from sparsectr.prediction.calibrated import served_probability
from sparsectr.prediction.raw_ids import RawIds
from sparsectr.training.load_model import TrainedModel


class RunScorer:
    """A trained model behind the look-up of ids that is exported with it.

    Args:
        trained: The model.
        store: The store of its vocabularies.
        calibration: What becomes of its logits; `None` for nothing.

    Attributes:
        inputs: The inputs of a request.
        buckets: The shapes that its export would be warmed up with.
    """

    def __init__(
        self,
        trained: TrainedModel,
        store: Store,
        calibration: Calibration | None = None,
    ) -> None:
        self.inputs = request_types(trained.schema)
        self.buckets = Buckets.for_config(trained.config)
        # The tables are read once, so the files may go.
        with tempfile.TemporaryDirectory() as folder:
            raw_ids = RawIds(
                trained.schema,
                store.vocabularies(),
                Path(folder),
                trained.config.data.max_history,
            )

        def probability(batch: Mapping[str, Any]) -> Any:
            ids = raw_ids.request(batch)
            logits = trained.model(ids, training=False).logits
            return served_probability(
                logits, calibration, trained.schema.negative_rate
            )

        specs = {
            name: tf.TensorSpec(
                [None if size < 0 else size for size in type_.shape],
                type_.dtype,
                name,
            )
            for name, type_ in self.inputs.items()
        }
        # Traced once for all lengths and numbers of candidates.
        self._probability = tf.function(
            probability, input_signature=[specs], autograph=False
        )

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Returns the probabilities of a padded batch, float32 `[B, C]`."""
        tensors = {name: tf.constant(value) for name, value in batch.items()}
        return np.asarray(self._probability(tensors))
