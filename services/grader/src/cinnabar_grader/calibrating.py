"""Scales of items, learned from answers that their teachers graded, a slice at a time.

Scoring hundreds of answers takes seconds. A slice of them takes little longer than a batch of tasks, so that
the tasks of other items never wait for more than that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cinnabar_grader.semantic import MIN_GRADED, UNCALIBRATED, Calibration, SemanticRequest, SemanticScore
from cinnabar_grader.semantic.recent import Recent

MAX_EXAMPLES = 500
"""Graded answers of an item."""
SLICE = 16
"""Answers that are scored at once."""
ITEMS = 1024
"""Items whose scales are kept, by last use."""


class Scorer(Protocol):
    """Scores free text; `SemanticScorer` is one. Safe to call from several threads."""

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        """One score per request, in order."""
        ...


@dataclass(slots=True, frozen=True)
class GradedAnswer:
    """An answer, and the share of the points that a teacher gave it."""

    answer: str
    fraction: float


class Graded(Protocol):
    """What a scale is learned for."""

    @property
    def question(self) -> str: ...

    @property
    def references(self) -> tuple[str, ...]: ...

    @property
    def examples(self) -> tuple[GradedAnswer, ...]: ...


@dataclass(slots=True)
class _Learning:
    seen: int = 0
    fractions: list[float] = field(default_factory=list[float])
    given: list[float] = field(default_factory=list[float])
    calibration: Calibration | None = None


class Calibrations:
    """The scale of each item. For one thread at a time."""

    def __init__(self, scorer: Scorer, *, items: int = ITEMS) -> None:
        self._scorer = scorer
        self._items: Recent[Hashable, _Learning] = Recent(items)

    def known(self, key: Hashable, item: Graded) -> Calibration | None:
        """The scale of the item that has this key; None when `advance` must be called first."""
        if len(item.examples) < MIN_GRADED:
            return UNCALIBRATED
        learning = self._items.get(key)
        return None if learning is None else learning.calibration

    def advance(self, key: Hashable, item: Graded) -> None:
        """Scores the next slice of the examples; after the last the scale is known.

        Answers on which a guard fired are left out: their scores follow other rules.
        """
        learning = self._items.get(key) or _Learning()
        self._items.put(key, learning)
        part = item.examples[learning.seen : learning.seen + SLICE]
        requests = [
            SemanticRequest(question=item.question, references=item.references, answer=example.answer)
            for example in part
        ]
        for example, score in zip(part, self._scorer.score(requests), strict=True):
            if not score.flags and example.answer not in item.references:
                learning.fractions.append(score.fraction)
                learning.given.append(example.fraction)
        learning.seen += len(part)
        if learning.seen >= len(item.examples):
            enough = len(learning.fractions) >= MIN_GRADED
            learning.calibration = (
                Calibration.fit(learning.fractions, learning.given) if enough else UNCALIBRATED
            )
