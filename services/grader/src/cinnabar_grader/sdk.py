"""A grader of your own in ten lines: a function from an answer to a score, and its kind.

    from cinnabar_grader.sdk import Given, Score, serve

    def grade(given: Given) -> Score:
        wanted = given.config["words"]
        count = len(given.text.split())
        return Score(given.points * min(1, count / wanted), f"{count} of {wanted:g} words.")

    if __name__ == "__main__":
        serve("word-count", grade, version="1")

It serves the queue of the custom items of that kind: leases, heartbeats, cancellation, health and a stop
that loses nothing are taken care of. Settings are those of every grader (``GRADER_SCHEDULER_TARGET``, …).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias, cast

from cinnabar_common.queues import CUSTOM_PREFIX
from cinnabar_common.server import main
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.custom import CustomItem
from cinnabar_grader.graders import (
    ANSWER,
    AnswerValue,
    CodeAnswer,
    CriterionScore,
    FailureCode,
    Graded,
    NumberAnswer,
    Outcome,
    Progress,
    Provenance,
    Task,
    Ungradable,
    checked,
)
from cinnabar_grader.kinds import Kind, Opened, Opening, Place

__all__ = ["Given", "NumberAnswer", "Part", "Score", "Unable", "kind_of", "serve"]


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be graded."""

    answer: AnswerValue
    """As the student gave it; see ``text``, ``options``, ``number`` and ``files``."""
    points: float
    """Of the item."""
    prompt: str
    config: Mapping[str, Any]
    """Of the item, as the instructor wrote it; its numbers are floats."""
    criteria: Mapping[str, float]
    """Points of the parts of the rubric by id; empty when there is none."""
    attempt: int
    """Deliveries of this task so far, this one included."""

    @property
    def text(self) -> str:
        """The answer as a text; empty when it is none."""
        return self.answer if isinstance(self.answer, str) else ""

    @property
    def options(self) -> frozenset[str]:
        """The selected options."""
        return self.answer if isinstance(self.answer, frozenset) else frozenset()

    @property
    def number(self) -> NumberAnswer | None:
        """The number and its unit."""
        return self.answer if isinstance(self.answer, NumberAnswer) else None

    @property
    def files(self) -> Mapping[str, str]:
        """Files of a program by path."""
        return self.answer.files if isinstance(self.answer, CodeAnswer) else {}


@dataclass(frozen=True, slots=True)
class Part:
    """The score of one part of the rubric."""

    score: float
    feedback: str = ""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. With a rubric ``parts`` has all of its criteria, and their sum is the score."""

    score: float
    """0 to the points of the item."""
    feedback: str = ""
    """What the student reads."""
    parts: Mapping[str, Part] = field(default_factory=dict[str, Part])
    needs_review: bool = False
    flags: Sequence[str] = ()
    """Reason codes, for example "OFF_TOPIC"."""
    model: str = ""
    """What made the score besides the program."""


class Unable(Exception):
    """Raise it when an answer cannot be graded, which costs the student nothing.

    By default it is tried again for long, as when something that the grader needs is away. With ``retry``
    off no retry can help: the item makes no sense. The message is for operators: no student's text in it.
    """

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


Grade: TypeAlias = "Callable[[Given], Score | Awaitable[Score]]"


class FunctionGrader:
    """Grades by a function: a coroutine runs on the event loop, any other in a thread."""

    def __init__(self, kind: str, grade: Grade, *, version: str) -> None:
        self.name = kind
        self.version = version
        self.queue = CUSTOM_PREFIX + kind
        self._grade = grade
        self._waits = inspect.iscoroutinefunction(grade)

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        """The outcome. What the function raises besides `Unable` counts as its defect."""
        started = time.perf_counter()
        item = _item_of(task)
        given = Given(
            task.answer,
            item.points,
            item.prompt,
            item.config,
            {part.criterion: part.points for part in item.criteria},
            task.attempt,
        )
        try:
            score = await self._called(given)
        except Unable as error:
            code = FailureCode.UNAVAILABLE if error.retry else FailureCode.FAILED_PRECONDITION
            raise Ungradable(code, str(error)) from error
        provenance = Provenance(self.name, self.version, score.model, seconds=time.perf_counter() - started)
        return Graded(
            task.token,
            score.score,
            item.points,
            _criteria(item, score),
            score.feedback,
            provenance,
            score.needs_review,
            score.flags,
        )

    async def _called(self, given: Given) -> Score:
        if self._waits:
            return await cast("Awaitable[Score]", self._grade(given))
        return cast("Score", await asyncio.to_thread(self._grade, given))


def _item_of(task: Task) -> CustomItem:
    item, _ = checked(task, CustomItem, object)
    return item


def _criteria(item: CustomItem, score: Score) -> list[CriterionScore]:
    points = {part.criterion: part.points for part in item.criteria} or {ANSWER: item.points}
    parts = score.parts or ({} if item.criteria else {ANSWER: Part(score.score)})
    if parts.keys() != points.keys():
        raise ValueError("the parts of the score are not the criteria of the item")
    if not 0 <= score.score <= item.points:
        raise ValueError("the score is not within 0 and the points of the item")
    return [
        CriterionScore(name, part.score, points[name], part.feedback, part.confidence)
        for name, part in ((name, parts[name]) for name in points)
    ]


def kind_of(kind: str, grade: Grade, *, version: str) -> Kind:
    """An entry for the table of kinds, for processes that serve several."""
    grader = FunctionGrader(kind, grade, version=version)

    async def opened(_: Opening) -> Opened:
        return Opened([grader])

    return Kind(name=grader.queue, queues=(grader.queue,), place=Place.SLOTS, open=opened)


def serve(kind: str, grade: Grade, *, version: str) -> NoReturn:
    """Serves custom items of ``kind`` until SIGTERM, and ends the process.

    Up to ``GRADER_MAX_WORKERS`` answers are graded at once: a function that is not a coroutine must be
    safe to call from several threads. ``version`` rises when the same answer could be graded differently.
    """
    entry = kind_of(kind, grade, version=version)
    environment = dict(os.environ)
    environment.setdefault("GRADER_QUEUES", next(iter(entry.queues)))
    sys.exit(main(GraderConfig, "GRADER_", functools.partial(running, kinds=(entry,)), environment))
