"""What a grader is: tasks in, outcomes out.

A grader that cannot grade a task says so with `Failed`, which costs the student
nothing; a `Graded` with 0 points is a verdict. The two are never mixed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, Protocol, TypeAlias, TypeVar

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


@dataclass(slots=True, frozen=True)
class CodeAnswer:
    """The files of a program: content by relative path."""

    files: Mapping[str, str]


@dataclass(slots=True, frozen=True)
class ArchiveAnswer:
    """The files of a program in a zip archive, as it was uploaded; of items of programs only."""

    content: bytes


AnswerValue: TypeAlias = (
    "str | frozenset[str] | NumberAnswer | CodeAnswer | ArchiveAnswer | FileAnswer | None"
)
"""Text, the ids of the selected options, a number, a program, or nothing at all. No grader meets a file."""


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
    attempt: int = 1
    """Deliveries of this generation so far."""
    item_key: str = ""
    """"{revision id}/{item id}"; what is kept of an item may be kept under it."""
    upgrade: bool = False
    """Its grade replaces that of a fallback: fail rather than fall back again."""
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
    fallback_reason: str = ""
    """Why a fallback stood in, for example "BREAKER_OPEN"."""
    shared: bool = False
    """The score was made for an identical answer before."""
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class CriterionScore:
    """The score of one criterion."""

    criterion: str
    score: float
    max_score: float
    feedback: str = ""
    confidence: float = 1.0
    evidence: Sequence[str] = ()
    """Passages of the answer, word for word: at most 20 of at most 1,000 characters."""
    provenance: Provenance | None = None
    """Who made it, where that is not who made the grade."""


class TestVerdict(IntEnum):
    """What the run of a test came to; the numbers of `TestResult.Verdict`."""

    __test__ = False  # it is no test of ours

    ACCEPTED = 1
    WRONG_ANSWER = 2
    TIME_LIMIT = 3
    MEMORY_LIMIT = 4
    OUTPUT_LIMIT = 5
    RUNTIME_ERROR = 6
    COMPILE_ERROR = 7
    FORBIDDEN = 8
    INTERNAL = 9
    NOT_RUN = 10


@dataclass(slots=True, frozen=True)
class TestResult:
    """How one test of a program went."""

    __test__ = False  # it is no test of ours

    test: str
    verdict: TestVerdict
    score: float
    max_score: float
    title: str = ""
    hidden: bool = False
    message: str = ""
    """For the student; at most 4 KiB."""
    output: str = ""
    """The beginning of what the program wrote; at most 4 KiB."""
    signal: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0


@dataclass(slots=True, frozen=True)
class Progress:
    """What is finished of a task that still runs; stands for itself, and may be lost."""

    token: LeaseToken
    tests: Sequence[TestResult]


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
    tests: Sequence[TestResult] = ()
    """Of programs, in the order of the item."""
    upgradable: bool = False
    """A fallback made it, and the item wishes it graded again when that is not needed any more."""


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


class TaskGrader(Protocol):
    """Grades the tasks of one queue one by one, many at once: for graders that mostly wait.

    ``grade`` is a coroutine of the event loop and must not hold it up. It may be cancelled at any time,
    when its task is, or when the process leaves. Exceptions mean what they mean for `Grader`.
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

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        """The outcome; before it, ``report`` may be called with what is finished."""
        ...


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
