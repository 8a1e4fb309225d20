"""Sums of scores, which grow and shrink with every grade, and what they say.

Scores are counted in millionths of a point, as whole numbers: sums of these can
be taken apart again without a rest, however often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cinnabar_storage.records import Micros

POINT = 1_000_000
"""Units of a score in a point."""
BINS = 20
"""Parts of a histogram."""
_NEARLY = 1e-9  # a share of 0.15 that floating point makes 0.1499999… is 0.15


class ScoredCriterion(NamedTuple):
    """Points earned for one criterion."""

    criterion: str
    score: float
    max_score: float


class ScoredItem(NamedTuple):
    """Points earned for one item, by its current grade."""

    item_id: str
    score: float
    max_score: float
    criteria: tuple[ScoredCriterion, ...]


class Contribution(NamedTuple):
    """What one submission adds to one sum: (item, criterion), both "" for the submission as a whole.

    ``score`` is in millionths of a point; ``share`` is the part of the histogram, 0 to 19.
    """

    item_id: str
    criterion: str
    score: int
    share: int


class ScoreKey(NamedTuple):
    """One sum of one assignment."""

    tenant: str
    course: str
    assignment: str
    item_id: str
    criterion: str


class ScoreSums(NamedTuple):
    """How many scores, their sum, and that of their squares, in millionths of a point and of its square."""

    number: int
    total: int
    squares: int
    histogram: tuple[int, ...]


NOTHING = ScoreSums(0, 0, 0, (0,) * BINS)


class ScoreStatistics(NamedTuple):
    """What the sums say; mean and standard deviation (of the population) in points."""

    item_id: str
    criterion: str
    number: int
    mean: float
    standard_deviation: float
    histogram: tuple[int, ...]


class AssignmentScores(NamedTuple):
    """The sums of an assignment on one shard; what was committed before ``as_of`` is in them."""

    as_of: Micros
    sums: dict[tuple[str, str], ScoreSums]


class ScoreRows(Protocol):
    """The sums of one shard; part of `ports.Shard`, with the same errors."""

    async def assignment_scores(self, tenant: str, course: str, assignment: str) -> AssignmentScores:
        """Those of one assignment; none when nothing of it is graded here."""
        ...


def share_of(score: float, max_score: float) -> int:
    """The part of the histogram that a score belongs to."""
    if max_score <= 0:
        return BINS - 1
    return max(0, min(BINS - 1, math.floor(score / max_score * BINS + _NEARLY)))


def contributions(items: Sequence[ScoredItem], *, complete: bool) -> list[Contribution]:
    """What a submission with these items adds; as a whole only when it is ``complete``."""
    found: list[Contribution] = []

    def add(item_id: str, criterion: str, score: float, max_score: float) -> None:
        found.append(Contribution(item_id, criterion, round(score * POINT), share_of(score, max_score)))

    for item in items:
        add(item.item_id, "", item.score, item.max_score)
        for criterion in item.criteria:
            add(item.item_id, criterion.criterion, criterion.score, criterion.max_score)
    if complete and items:
        add("", "", math.fsum(item.score for item in items), math.fsum(item.max_score for item in items))
    return found


def plus(left: ScoreSums, right: ScoreSums) -> ScoreSums:
    """Both together."""
    return ScoreSums(
        left.number + right.number,
        left.total + right.total,
        left.squares + right.squares,
        tuple(a + b for a, b in zip(left.histogram, right.histogram, strict=True)),
    )


def of_contribution(given: Contribution, times: int = 1) -> ScoreSums:
    """The sums of one contribution; with ``times`` -1 what takes it away."""
    histogram = tuple(times if part == given.share else 0 for part in range(BINS))
    return ScoreSums(times, times * given.score, times * given.score**2, histogram)


def statistics_of(item_id: str, criterion: str, sums: ScoreSums) -> ScoreStatistics:
    """Mean and deviation, without losing digits to large numbers: all but the last step is exact."""
    variance = sums.number * sums.squares - sums.total**2
    return ScoreStatistics(
        *(item_id, criterion, sums.number),
        sums.total / sums.number / POINT,
        math.sqrt(variance) / sums.number / POINT,
        sums.histogram,
    )
