"""The fitted numbers, read from `weights.json` beside this module; `fitting/fit.py` writes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE_FEATURES", "VERSION", "Ridge", "confidence_inputs", "load_weights"]

VERSION: Final = "2"
"""Raised whenever `weights.json` or the meaning of a feature changes."""

Doubles = npt.NDArray[np.float64]

CONFIDENCE_FEATURES: Final = (
    "recall",
    "short",
    "new_recall",
    "log_length",
    "order",
    "negation_gap",
    "soft_gain",
    "cosine_gain",
)
"""What the confidence looks at besides the prediction; the last two only where there is a model."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear model of the features, with the logistic model of how far to trust it."""

    names: tuple[str, ...]
    """The features used, in the order of `coefficients`."""
    coefficients: Doubles
    """(len(names),) per unit of the raw feature."""
    intercept: float
    low: Doubles
    """(len(names),) smallest value that the fit saw; features are clipped to it."""
    high: Doubles
    """(len(names),) the same, largest."""
    confidence: Doubles
    """(k,) for `confidence_inputs`."""

    def predict(self, features: Doubles) -> Doubles:
        """`features` (N, len(names)) → (N,) fractions in 0..1."""
        clipped = np.clip(features, self.low, self.high)
        return np.clip(clipped @ self.coefficients + self.intercept, 0.0, 1.0)


def confidence_inputs(prediction: Doubles, features: Doubles) -> Doubles:
    """(N,) and (N, k), those of `CONFIDENCE_FEATURES` that there are → (N, 3 + k)."""
    return np.column_stack([np.ones_like(prediction), prediction, prediction**2, features])


def load_weights() -> dict[str, Ridge]:
    """By name: `en`, `zh`, `other` (with a model) and `lexical-en`, `lexical-zh` (without)."""
    content = resources.files(__package__ or __name__).joinpath("weights.json").read_text("utf-8")
    models = cast(Mapping[str, Mapping[str, Any]], json.loads(content)["models"])
    return {name: _ridge(model) for name, model in models.items()}


def _ridge(model: Mapping[str, Any]) -> Ridge:
    return Ridge(
        names=tuple(model["names"]),
        coefficients=np.array(model["coefficients"]),
        intercept=float(model["intercept"]),
        low=np.array(model["low"]),
        high=np.array(model["high"]),
        confidence=np.array(model["confidence"]),
    )
