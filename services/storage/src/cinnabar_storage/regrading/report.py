"""What a regrade changes: sums over pairs of grades, so that no more than a page of them is in memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BINS = 21
"""Of a histogram: changes nearest to -1, -0.9 … 0.9, 1 of the points."""
LARGEST = 20
"""Changes that a report names."""
_SAME = 1e-9  # points: scores are sums of floats


class Scored(NamedTuple):
    """A score and what it is out of, in points."""

    score: float
    max_score: float


class GradeParts(NamedTuple):
    """What a report reads of a grade: the whole, and each criterion by its id."""

    whole: Scored
    criteria: Mapping[str, Scored]


class Change(NamedTuple):
    """A grade that changes; ``share`` of the points of the item after."""

    share: float
    submission_id: str
    item: str
    old_score: float
    new_score: float
    max_score: float


@dataclass(slots=True)
class Delta:
    """Changes of one criterion of one item."""

    compared: int = 0
    total: float = 0.0
    squares: float = 0.0
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)

    @property
    def mean(self) -> float:
        """New minus old on average, in points."""
        return self.total / self.compared

    @property
    def rms(self) -> float:
        """Root of the mean square of new minus old, in points."""
        return math.sqrt(self.squares / self.compared)

    def merge(self, other: Delta) -> None:
        """Those of another too."""
        self.compared += other.compared
        self.total += other.total
        self.squares += other.squares
        self.histogram = [mine + theirs for mine, theirs in zip(self.histogram, other.histogram, strict=True)]

    def add(self, old: Scored, new: Scored) -> None:
        """One more change."""
        change = new.score - old.score
        self.compared += 1
        self.total += change
        self.squares += change * change
        self.histogram[_bin(share_of(old, new))] += 1


def share_of(old: Scored, new: Scored) -> float:
    """The change as a share of the points after, -1 to 1."""
    if new.max_score <= 0:
        return 0.0
    return max(-1.0, min(1.0, (new.score - old.score) / new.max_score))


def _bin(share: float) -> int:
    """Index of the nearest tenth; halves go away from zero, so that opposite changes are counted alike."""
    tenths = math.floor(abs(share) * 10 + 0.5 + _SAME)
    return 10 + (tenths if share > 0 else -tenths)


class Report:
    """Adds up what a regrade changes. An item is passed from ``pass_share`` of its points on."""

    def __init__(self, pass_share: float) -> None:
        self._pass_share = pass_share
        self.compared = 0
        self.raised = 0
        self.lowered = 0
        self.failed_to_passed = 0
        self.passed_to_failed = 0
        self._deltas: dict[tuple[str, str], Delta] = {}
        self._largest: list[Change] = []

    @property
    def unchanged(self) -> int:
        """Grades with the same score."""
        return self.compared - self.raised - self.lowered

    @property
    def deltas(self) -> list[tuple[str, str, Delta]]:
        """(item, criterion, changes) by item and criterion; the whole of an item has an empty criterion."""
        return [(*key, self._deltas[key]) for key in sorted(self._deltas)]

    @property
    def largest(self) -> list[Change]:
        """The largest changes, up or down, the largest first."""
        return sorted(self._largest, key=_rank, reverse=True)

    def add(self, submission_id: str, item: str, old: GradeParts, new: GradeParts) -> None:
        """One more grade against the one that counted before."""
        change = new.whole.score - old.whole.score
        self.compared += 1
        self.raised += change > _SAME
        self.lowered += change < -_SAME
        before, after = self._passes(old.whole), self._passes(new.whole)
        self.failed_to_passed += after and not before
        self.passed_to_failed += before and not after
        self._deltas.setdefault((item, ""), Delta()).add(old.whole, new.whole)
        for criterion, scored in new.criteria.items():
            known = old.criteria.get(criterion)
            if known is not None:
                self._deltas.setdefault((item, criterion), Delta()).add(known, scored)
        if abs(change) > _SAME:
            self._keep(
                Change(
                    *(share_of(old.whole, new.whole), submission_id, item),
                    *(old.whole.score, new.whole.score, new.whole.max_score),
                )
            )

    @classmethod
    def merged(cls, pass_share: float, reports: Iterable[Report]) -> Report:
        """One of several."""
        whole = cls(pass_share)
        for part in reports:
            whole.compared += part.compared
            whole.raised += part.raised
            whole.lowered += part.lowered
            whole.failed_to_passed += part.failed_to_passed
            whole.passed_to_failed += part.passed_to_failed
            for item, criterion, delta in part.deltas:
                whole._deltas.setdefault((item, criterion), Delta()).merge(delta)
            for change in part.largest:
                whole._keep(change)
        return whole

    def _passes(self, scored: Scored) -> bool:
        return scored.score >= self._pass_share * scored.max_score - _SAME

    def _keep(self, change: Change) -> None:
        ranked = [(_rank(one), one) for one in (*self._largest, change)]
        self._largest = [one for _, one in heapq.nlargest(LARGEST, ranked)]


def _rank(change: Change) -> tuple[float, str, str]:
    return abs(change.share), change.submission_id, change.item
