"""A function of logits that makes probabilities mean what they say.

Fitted by `sparsectr.recalibrate`, kept in the folder of a run, and part of
what `predict` and the export compute. Nothing here imports TensorFlow.
"""

import dataclasses
import itertools
import json
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sparsectr.errors import InputError

FILE = "calibration.json"
"""In the folder of a run."""

_EXTRA = (
    "Recalibration needs scikit-learn, which the extra `calibration` "
    "installs: pip install 'sparsectr[calibration]'"
)

_MOST_BINS = 32
_CLICKS_OF_BIN = 20

Array = npt.NDArray[Any]


class Pieces(NamedTuple):
    """The pieces of the function, those outside the knots included.

    Attributes:
        knots: float32 `[K]`, ascending: where pieces meet.
        start: float32 `[K + 1]`, a logit of each piece.
        value: float32 `[K + 1]`, the function there.
        slope: float32 `[K + 1]`.
    """

    knots: Array
    start: Array
    value: Array
    slope: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """A continuous function of logits, linear between its knots.

    Outside them it goes on with one slope, so that it never makes candidates
    alike that the model tells apart there. Platt's scaling has one knot.

    Args:
        method: How it was fitted.
        step: Training step of the weights that it is for.
        logits: Where its knots are, ascending.
        calibrated: The logits that they become.
        outer_slope: The slope outside.

    Raises:
        ValueError: If these are no such function.
    """

    method: str
    step: int
    logits: tuple[float, ...]
    calibrated: tuple[float, ...]
    outer_slope: float

    def __post_init__(self) -> None:
        numbers = [*self.logits, *self.calibrated, self.outer_slope]
        knots = self.logits
        if (
            not knots
            or len(knots) != len(self.calibrated)
            or not all(map(math.isfinite, numbers))
            or any(a >= b for a, b in itertools.pairwise(knots))
        ):
            raise ValueError(
                "`logits` must be ascending, with one of `calibrated` each. "
                f"Received: logits={knots}, calibrated={self.calibrated}"
            )

    def pieces(self) -> Pieces:
        """Returns the function in pieces."""
        knots, values = np.array(self.logits), np.array(self.calibrated)
        inner = np.diff(values) / np.diff(knots)
        # The piece before the first knot starts there too.
        first = [0, *range(len(knots))]
        columns = (
            knots,
            knots[first],
            values[first],
            np.array([self.outer_slope, *inner, self.outer_slope]),
        )
        return Pieces(*(column.astype(np.float32) for column in columns))

    def __call__(self, logits: Array) -> Array:
        """Returns the calibrated logits, float32."""
        knots, start, value, slope = self.pieces()
        piece = np.searchsorted(knots, logits, side="right")
        return value[piece] + slope[piece] * (logits - start[piece])

    def to_dict(self) -> dict[str, Any]:
        """Returns it as values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str, where: str) -> "Calibration":
        """Returns what `to_dict` describes.

        Args:
            text: JSON.
            where: The file, for the error.

        Raises:
            InputError: If it is damaged.
        """
        try:
            values = json.loads(text)
            return cls(
                method=str(values["method"]),
                step=int(values["step"]),
                logits=tuple(map(float, values["logits"])),
                calibrated=tuple(map(float, values["calibrated"])),
                outer_slope=float(values["outer_slope"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where} is damaged: {error}") from error


def fit(method: str, labels: Array, logits: Array, step: int) -> Calibration:
    """Fits a function to what was clicked.

    Args:
        method: "platt", slope and intercept, or "isotonic": knots of which
            none is lower than the one before. They are means of candidates in
            bins of equal numbers, so that a step of the fit has a width and
            rounding of a logit stays small.
        labels: 0 or 1, `[n]`.
        logits: float32 `[n]`.
        step: Training step of the weights that gave the logits.

    Raises:
        InputError: If scikit-learn is missing, or labels are all alike.
    """
    labels, logits = labels.astype(np.float64), logits.astype(np.float64)
    num_clicks = int(labels.sum())
    if not 0 < num_clicks < labels.size:
        raise InputError(
            f"Recalibration needs clicks and others: of {labels.size} "
            f"candidates {num_clicks} were clicked."
        )
    try:
        from sklearn.isotonic import IsotonicRegression
        from sklearn.linear_model import LogisticRegression
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise InputError(_EXTRA) from error
    if method == "platt":
        model = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
        return Calibration(
            method=method,
            step=step,
            logits=(0.0,),
            calibrated=(float(model.intercept_[0]),),
            outer_slope=float(model.coef_[0, 0]),
        )
    bins = np.array_split(
        np.argsort(logits, kind="stable"),
        max(2, min(_MOST_BINS, num_clicks // _CLICKS_OF_BIN)),
    )
    # Of equal logits, one knot.
    knots, of_bin = np.unique(
        [logits[rows].mean() for rows in bins if rows.size], return_inverse=True
    )
    sizes = np.bincount(of_bin, [rows.size for rows in bins if rows.size])
    clicks = np.bincount(of_bin, [labels[r].sum() for r in bins if r.size])
    rates = IsotonicRegression().fit_transform(
        knots, clicks / sizes, sample_weight=sizes
    )
    # No rate of 0 or 1: whatever was not seen yet may happen.
    rates = np.clip(rates, 0.5 / labels.size, 1.0 - 0.5 / labels.size)
    return Calibration(
        method=method,
        step=step,
        logits=tuple(knots.tolist()),
        calibrated=tuple(np.log(rates / (1.0 - rates)).tolist()),
        outer_slope=1.0,
    )
