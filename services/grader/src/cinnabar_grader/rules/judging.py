"""Rules that decide by themselves, and the grader that applies them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cinnabar_grader.graders import (
    ANSWER,
    CriterionScore,
    Failed,
    Graded,
    Outcome,
    Provenance,
    Task,
    Ungradable,
    checked,
    defect,
)

LONG_ANSWER = 4096
"""Characters; normalizing so many takes some 0.1 ms."""


@dataclass(slots=True, frozen=True)
class Verdict:
    """What a rule says of one answer."""

    score: float
    feedback: str


A = TypeVar("A", contravariant=True)


class Rule(Protocol[A]):
    """A compiled item that decides by itself."""

    @property
    def points(self) -> float:
        """Points of the item."""
        ...

    @property
    def slow(self) -> bool:
        """Whether a verdict may take more than some microseconds."""
        ...

    def verdict(self, answer: A) -> Verdict:
        """Judges an answer. Ungradable when the rule cannot decide."""
        ...


class RuleGrader(Generic[A]):
    """Grades by rules of one class."""

    batch_limit = 128

    def __init__(self, queue: str, *, version: str, rule: type[Rule[A]], answer: type[A]) -> None:
        self.name = queue
        self.queue = queue
        self.version = version
        self._rule = rule
        self._answer = answer

    def blocking(self, batch: Sequence[Task]) -> bool:
        """Only when an item of the batch has a slow rule, or an answer is very long."""
        return any(
            getattr(task.item, "slow", False)
            or (isinstance(task.answer, str) and len(task.answer) > LONG_ANSWER)
            for task in batch
        )

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        """One outcome per task that is still wanted, in order."""
        started = time.perf_counter()
        judged = [(task, *self._judge(task)) for task in batch if not task.cancelled]
        provenance = Provenance(
            self.name, self.version, seconds=(time.perf_counter() - started) / max(1, len(batch))
        )
        return [
            verdict
            if isinstance(verdict, Failed)
            else Graded(
                task.token,
                verdict.score,
                points,
                (CriterionScore(ANSWER, verdict.score, points),),
                verdict.feedback,
                provenance,
            )
            for task, verdict, points in judged
        ]

    def _judge(self, task: Task) -> tuple[Verdict | Failed, float]:
        try:
            rule, answer = checked(task, self._rule, self._answer)
            return rule.verdict(answer), rule.points
        except Ungradable as error:
            return Failed(task.token, error.code, error.message), 0.0
        except Exception as error:  # the defect of one task must not touch the others
            return defect(task, error), 0.0
