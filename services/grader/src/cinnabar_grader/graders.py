"""What a grader is: tasks in, outcomes out.

A grader that cannot grade a task says so with `Failed`, which costs the student
nothing; a `Graded` with 0 points is a verdict. The two are never mixed.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, NewType, Protocol, TypeAlias, TypeVar

log = logging.getLogger(__name__)
LeaseToken = NewType("LeaseToken", str)


class FailureCode(IntEnum):
    """Why a task could not be graded; the numbers of `google.rpc.Code`.

    The scheduler's retry rules go by it: see `Outcome.failure` of the work stream.
    """

    UNKNOWN = 2
    """The item's own rule could not decide in time; tried again a few times."""
    INVALID_ARGUMENT = 3
    """The task itself is malformed; never tried again."""
    FAILED_PRECONDITION = 9
    """The item cannot be graded by anybody: its specification is broken; never tried again."""
    INTERNAL = 13
    """A defect of the grader; tried again a few times."""
    UNAVAILABLE = 14
    """Something that the grader needs is away; tried again for long."""


class Ungradable(Exception):
    """This task cannot be graded. The message is for operators and never holds student text."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True, frozen=True)
class NumberAnswer:
    """A number and its unit as written."""

    value: float
    unit: str = ""


@dataclass(slots=True, frozen=True)
class FileAnswer:
    """A text that lies beside the suite; it is fetched before the task is graded."""

    upload: str
    size_bytes: int
    sha256: bytes


AnswerValue: TypeAlias = "str | frozenset[str] | NumberAnswer | FileAnswer | None"
"""Text, the ids of the selected options, a number, or nothing at all. No grader meets a file."""


@dataclass(slots=True, frozen=True)
class BrokenItem:
    """An item that no grader can use, and why."""

    reason: str


@dataclass(slots=True)
class Task:
    """One task under lease. ``item`` is the compiled item, of the class that its queue's grader knows."""

    token: LeaseToken
    queue: str
    item: object
    answer: AnswerValue
    cancelled: bool = False
    """Nobody wants its outcome any more. May turn true, from another thread, while it is graded: a
    grader that works long looks at it in between and may leave the task out of its outcomes."""


@dataclass(slots=True, frozen=True)
class Provenance:
    """Who made the scores of a batch."""

    grader: str
    version: str
    model: str = ""
    fallback: bool = False
    seconds: float = 0.0
    """Time per answer: the share of one in the batch."""


@dataclass(slots=True)
class CriterionScore:
    """The score of one criterion."""

    criterion: str
    score: float
    max_score: float
    feedback: str = ""
    confidence: float = 1.0


@dataclass(slots=True, frozen=True)
class Artifact:
    """A result that is too large for a grade: a title of 1 to 128 characters, 1 byte to 16 MiB."""

    title: str
    content_type: str
    content: bytes


@dataclass(slots=True, frozen=True)
class StoredArtifact:
    """An artifact that lies beside the suite."""

    title: str
    content_type: str
    upload: str
    size_bytes: int
    sha256: bytes


@dataclass(slots=True)
class Graded:
    """A verdict. ``score`` is the sum of the criteria."""

    token: LeaseToken
    score: float
    max_score: float
    criteria: Sequence[CriterionScore]
    feedback: str
    provenance: Provenance
    needs_review: bool = False
    flags: Sequence[str] = ()
    artifacts: Sequence[Artifact | StoredArtifact] = ()
    """At most 20. They are put away before the grade is reported."""


@dataclass(slots=True)
class Failed:
    """Could not grade."""

    token: LeaseToken
    code: FailureCode
    message: str


@dataclass(slots=True)
class Released:
    """Handed back unworked."""

    token: LeaseToken


Outcome: TypeAlias = "Graded | Failed | Released"

LONG_ANSWER = 4096
"""Characters; normalizing so many takes some 0.1 ms."""

ANSWER = "answer"
"""The criterion of an item without a rubric."""


class Grader(Protocol):
    """Grades the tasks of one queue.

    ``grade`` returns one outcome per task, in any order, and is called by one thread at a time.
    A task that cannot be graded becomes `Failed`, alone; one that is `cancelled` meanwhile may be left
    out. ConnectionError, TimeoutError and an `Ungradable` of UNAVAILABLE mean that something the grader
    needs is away, and fail the batch as such. Any other exception is taken as the defect of some task
    of the batch: the caller then grades them one by one.
    """

    @property
    def name(self) -> str:
        """Name in provenance."""
        ...

    @property
    def version(self) -> str:
        """Rises when the same answer could be graded differently."""
        ...

    @property
    def queue(self) -> str:
        """The queue whose tasks it grades."""
        ...

    @property
    def batch_limit(self) -> int:
        """Most tasks of one call: what bounds how long a call takes."""
        ...

    def blocking(self, batch: Sequence[Task]) -> bool:
        """Whether grading may take longer than an event loop can spare (a few ms)."""
        ...

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        """One outcome per task."""
        ...


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


I = TypeVar("I")  # noqa: E741
V = TypeVar("V")


def checked(task: Task, item: type[I], answer: type[V]) -> tuple[I, V]:
    """Item and answer of a task, when they are of these types. Ungradable when they are not."""
    if isinstance(task.item, item) and isinstance(task.answer, answer):
        return task.item, task.answer
    if task.item is None:
        raise Ungradable(FailureCode.INTERNAL, "the item of the task was not sent")
    if isinstance(task.item, BrokenItem):
        raise Ungradable(FailureCode.FAILED_PRECONDITION, f"the item is broken: {task.item.reason}")
    if not isinstance(task.item, item):
        raise Ungradable(FailureCode.INVALID_ARGUMENT, f"the item is not one of the queue {task.queue!r}")
    if task.answer is None:
        raise Ungradable(FailureCode.INVALID_ARGUMENT, "the task carries no answer")
    raise Ungradable(FailureCode.INVALID_ARGUMENT, "the answer is not of the type of its item")


def defect(task: Task, error: Exception) -> Failed:
    """Logs an unexpected error and makes it an outcome. Its text may hold student text and is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    log.error(
        "grader broke",
        extra={
            "queue": task.queue,
            "lease": task.token,
            "error": type(error).__name__,
            "where": [f"{frame.name}:{frame.lineno}" for frame in frames[-5:]],
        },
    )
    return Failed(
        task.token, FailureCode.INTERNAL, f"the grader of {task.queue!r} broke: {type(error).__name__}"
    )
