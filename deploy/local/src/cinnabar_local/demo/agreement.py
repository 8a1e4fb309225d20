"""How well grades agree with those of teachers, and how long they took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Agreement:
    """Over ``count`` answers: Pearson's r (NaN where one side does not vary) and RMSE (scale 0 to 1)."""

    count: int
    pearson: float
    rmse: float


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Of (grader's score, teacher's score), each from 0 to 1; at least one pair."""
    count = len(pairs)
    mean_ours = sum(ours for ours, _ in pairs) / count
    mean_theirs = sum(theirs for _, theirs in pairs) / count
    covariance = sum((ours - mean_ours) * (theirs - mean_theirs) for ours, theirs in pairs)
    spread = math.sqrt(
        sum((ours - mean_ours) ** 2 for ours, _ in pairs)
        * sum((theirs - mean_theirs) ** 2 for _, theirs in pairs)
    )
    rmse = math.sqrt(sum((ours - theirs) ** 2 for ours, theirs in pairs) / count)
    return Agreement(count, covariance / spread if spread else math.nan, rmse)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed; NaN of none."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
