"""Dice, the activation of DIN."""

from typing import Any

import keras
from keras import ops

from sparsectr.ops.tensor import Tensor


@keras.saving.register_keras_serializable(package="sparsectr")
class Dice(keras.layers.Layer):
    """A rectifier whose corner follows the data (Zhou et al. 2018, Eq. 3).

        p = sigmoid((x - mean) / sqrt(variance + epsilon))
        dice(x) = p x + (1 - p) alpha x

    In training mean and variance are those of the batch, of its valid rows
    alone; else the running ones, so that no row depends on another.

    Args:
        momentum: Share of the running statistics that a training step keeps.
        epsilon: Added to the variance.

    Call arguments:
        rows: float `[..., d]`.
        row_mask: bool `[...]`, True for a row that counts; `None` for all.
        training: Whether the statistics are those of the batch.

    Returns:
        float tensor like `rows`.

    Numerics:
        float32 throughout. A batch without a valid row leaves the running
        statistics as they are. Several replicas each have the statistics of
        their own rows, and the running ones are the mean over them.
    """

    def __init__(
        self, momentum: float = 0.99, epsilon: float = 1e-8, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, rows_shape: Any, row_mask_shape: Any = None) -> None:
        shape = (rows_shape[-1],)
        self.alpha = self.add_weight(
            name="alpha",
            shape=shape,
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )
        for name, initial in (("mean", "zeros"), ("variance", "ones")):
            weight = self.add_weight(
                name=f"moving_{name}",
                shape=shape,
                initializer=initial,
                trainable=False,
                dtype="float32",
                autocast=False,
            )
            setattr(self, f"moving_{name}", weight)
        self.built = True

    def call(
        self,
        rows: Tensor,
        row_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        x = ops.cast(rows, "float32")
        if training:
            mean, variance = self._statistics(x, row_mask)
        else:
            mean = ops.convert_to_tensor(self.moving_mean)
            variance = ops.convert_to_tensor(self.moving_variance)
        share = ops.sigmoid((x - mean) * ops.rsqrt(variance + self.epsilon))
        alpha = ops.convert_to_tensor(self.alpha)
        return ops.cast(x * (share + (1.0 - share) * alpha), self.compute_dtype)

    def _statistics(
        self, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns mean and variance of the batch; moves the running ones."""
        axes = tuple(range(len(x.shape) - 1))
        counted = ops.ones_like(x[..., :1])
        if mask is not None:
            counted = counted * ops.cast(ops.expand_dims(mask, -1), "float32")
        count = ops.sum(counted)
        share = counted / ops.maximum(count, 1.0)
        mean = ops.sum(x * share, axis=axes)
        variance = ops.sum(ops.square(x - mean) * share, axis=axes)
        has_rows = ops.cast(count > 0, "float32")
        step = (1.0 - self.momentum) * has_rows
        for moving, new in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(moving + step * (ops.stop_gradient(new) - moving))
        return mean, variance

    def compute_output_shape(
        self, rows_shape: Any, row_mask_shape: Any = None
    ) -> Any:
        return rows_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }
