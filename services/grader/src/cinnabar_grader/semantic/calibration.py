"""A teacher's own scale for one assignment item, learned from answers that the teacher graded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["MIN_GRADED", "UNCALIBRATED", "Calibration"]

MIN_GRADED: Final = 10
"""Fewer graded answers than this say too little."""
_SCALE_PRIOR: Final = 0.5
"""Weight of "scale 1", in units of squared deviation (ten answers spread by ±0.22)."""
_OFFSET_PRIOR: Final = 6.0
"""Weight of "offset 0", in answers."""
_SCALES: Final = (0.3, 2.0)
"""Bounds of the scale: never against the order of the scorer, never a cliff."""
_FAR: Final = 0.3
"""Errors beyond this count by their size and not by its square (Huber): a slip of the pen moves little."""
_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """`apply` maps a score's fraction to `offset + scale · fraction`, kept in 0..1."""

    scale: float = 1.0
    offset: float = 0.0
    graded: int = 0
    """How many graded answers it was learned from; 0 for the identity."""

    @classmethod
    def fit(cls, fractions: Sequence[float], graded: Sequence[float]) -> "Calibration":
        """The teacher's fractions on the scorer's: robust least squares, drawn to the identity.

        Give it answers that the guards let through. Raises `ValueError` for fewer than `MIN_GRADED` pairs.
        """
        count = len(fractions)
        if count < MIN_GRADED or count != len(graded):
            raise ValueError(f"calibration needs at least {MIN_GRADED} pairs, got {count} and {len(graded)}")
        fitted = cls(graded=count)
        for _ in range(_ROUNDS):
            errors = [abs(fitted.apply(x) - y) for x, y in zip(fractions, graded, strict=True)]
            weights = [1.0 if error <= _FAR else _FAR / error for error in errors]
            fitted = cls._weighted(fractions, graded, weights)
        return fitted

    @classmethod
    def _weighted(
        cls, fractions: Sequence[float], graded: Sequence[float], weights: Sequence[float]
    ) -> "Calibration":
        rows = list(zip(fractions, graded, weights, strict=True))
        weight = sum(weights)
        mean, target = sum(x * w for x, _, w in rows) / weight, sum(y * w for _, y, w in rows) / weight
        spread = sum((x - mean) ** 2 * w for x, _, w in rows)
        joint = sum((x - mean) * (y - target) * w for x, y, w in rows)
        lowest, highest = _SCALES
        scale = min(highest, max(lowest, (joint + _SCALE_PRIOR) / (spread + _SCALE_PRIOR)))
        shift = (target - mean) * weight / (weight + _OFFSET_PRIOR)
        return cls(scale=scale, offset=mean + shift - scale * mean, graded=len(rows))

    def apply(self, fraction: float) -> float:
        """The calibrated fraction, 0..1."""
        return min(1.0, max(0.0, self.offset + self.scale * fraction))


UNCALIBRATED: Final = Calibration()
"""Leaves scores as they are."""
