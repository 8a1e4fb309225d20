"""A teacher's own scale for one assignment item, learned from answers that the teacher graded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["MIN_GRADED", "Calibration"]

MIN_GRADED: Final = 10
"""Fewer graded answers than this say too little."""
_SCALE_PRIOR: Final = 0.5
"""Weight of "scale 1", in units of squared deviation (ten answers spread by ±0.22)."""
_OFFSET_PRIOR: Final = 3.0
"""Weight of "offset 0", in answers."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`apply` maps a score's fraction to `offset + scale · fraction`, kept in 0..1."""

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def fit(cls, fractions: Sequence[float], graded: Sequence[float]) -> "Calibration":
        """Least squares of the teacher's fractions on the scorer's, drawn to the identity when there are few.

        Give it answers that the guards let through. Raises `ValueError` for fewer than `MIN_GRADED` pairs.
        """
        count = len(fractions)
        if count < MIN_GRADED or count != len(graded):
            raise ValueError(f"calibration needs at least {MIN_GRADED} pairs, got {count} and {len(graded)}")
        mean, target = sum(fractions) / count, sum(graded) / count
        spread = sum((x - mean) ** 2 for x in fractions)
        joint = sum((x - mean) * (y - target) for x, y in zip(fractions, graded, strict=True))
        scale = max(0.0, (joint + _SCALE_PRIOR) / (spread + _SCALE_PRIOR))
        shift = (target - mean) * count / (count + _OFFSET_PRIOR)
        return cls(scale=scale, offset=mean + shift - scale * mean)

    def apply(self, fraction: float) -> float:
        """The calibrated fraction, 0..1."""
        return min(1.0, max(0.0, self.offset + self.scale * fraction))
