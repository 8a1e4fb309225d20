"""What the domain passes around: plain data, times in µs since 1970-01-01 UTC.

Answers, grades and specs travel as serialized messages: the domain never looks
inside, and every byte is encoded once.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cinnabar_common.errors import SuiteError
from cinnabar_common.names import AssignmentName, SubmissionName, UploadName
from cinnabar_gateway.consistency import Positions


class SubmissionState(enum.Enum):
    """Where a submission is; the names are those of the public API."""

    QUEUED = 1
    GRADING = 2
    GRADED = 3
    CANCELLED = 4
    FAILED = 5


class ItemState(enum.Enum):
    """Where one item of a submission is; the names are those of the public API."""

    QUEUED = 1
    GRADED = 2
    CANCELLED = 3
    FAILED = 4
    REGRADING = 5


class TaskState(enum.Enum):
    """Where a task without a grade is."""

    OPEN = 1
    DEAD_LETTERED = 2
    CANCELLED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A revision of an assignment; ``spec`` is a serialized ``cinnabar.gateway.v1.Assignment``."""

    tenant: str
    name: AssignmentName
    revision_id: str
    spec: bytes
    create_time_us: int = 0
    update_time_us: int = 0


@dataclass(frozen=True, slots=True)
class AssignmentPage:
    """A part of a list, and whether it goes on after it."""

    assignments: tuple[Assignment, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """The grading task of one item: what every submission of a revision gets.

    ``item_key`` is "{revision id}/{item id}".
    """

    item: str
    queue: str
    item_key: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """An idempotency key of a user that nobody else works on; ``token`` proves it."""

    tenant: str
    user: str
    key: str
    token: str


@dataclass(slots=True, kw_only=True)
class NewSubmission:
    """A submission that passed every check and is ready to be committed.

    ``answers`` is a serialized AnswerSet; ``tasks`` pairs each task with its
    serialized Answer, in the order of the answers. Not frozen: thousands are
    made in a second, and a frozen one costs three times as much.
    """

    submission_id: str
    tenant: str
    name: AssignmentName
    revision_id: str
    author: str
    request_id: str
    fingerprint: bytes
    priority: int
    answers: bytes
    max_score: float
    tasks: list[tuple[TaskPlan, bytes]]
    create_time_us: int
    grade_after_us: int | None = None
    grade_by_us: int | None = None
    refusal: SuiteError | None = None
    """Why it is not to be committed now; it is then only looked for under its request id."""
    reservation: Reservation | None = None
    """Of its request id; settled when it is known what became of it."""
    estimate: WaitEstimate | None = None
    """When to expect its last grade; set once it is committed."""
    files: Sequence[tuple[int, UploadName]] = ()
    """Which of its answers, by index, are which files; their tasks have no answer until that is verified."""


@dataclass(frozen=True, slots=True)
class WaitEstimate:
    """How long a new task waits for its grade: ``position`` tasks go before it; seconds by quantile."""

    position: int
    p50_seconds: float
    p90_seconds: float


class Fate(enum.Enum):
    """What storage did with a new submission.

    ABSENT: it was only looked for, and is not there. UPLOAD_REFUSED: a file of it is not free any more.
    """

    CREATED = 1
    DUPLICATE = 2
    CONFLICT = 3
    UNAVAILABLE = 4
    ABSENT = 5
    UPLOAD_REFUSED = 6


@dataclass(slots=True)
class Committed:
    """The fate of one new submission; ``submission_id`` is the one that is stored."""

    fate: Fate
    submission_id: str
    positions: Positions


@dataclass(frozen=True, slots=True)
class SubmissionKey:
    """A submission of a tenant."""

    tenant: str
    submission_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task that has no grade (yet)."""

    item: str
    queue: str
    generation: int
    state: TaskState
    update_time_us: int
    reason: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The grade that counts of an item; ``grade`` is a serialized Grade.

    ``revision_id`` is that of the assignment that it was made by, "" for that of the submission.
    """

    item: str
    generation: int
    score: float
    grade: bytes
    create_time_us: int
    overridden: bool = False
    revision_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submission as it is stored, with its tasks and grades."""

    submission_id: str
    tenant: str
    parent: AssignmentName
    revision_id: str
    author: str
    priority: int
    answers: bytes
    max_score: float
    create_time_us: int
    tasks: tuple[Task, ...]
    grades: tuple[Grade, ...]
    grade_after_us: int | None = None
    grade_by_us: int | None = None
    etag: str = ""
    """Changes whenever the grading does; "" when it was only just created."""
    progress: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Of open items by id, how far they are: a serialized Grade that has tests and nothing else."""

    @property
    def name(self) -> SubmissionName:
        """Its resource name."""
        return SubmissionName(self.parent.course, self.parent.assignment, self.submission_id)

    @property
    def update_time_us(self) -> int:
        """When it last changed; never goes back."""
        changes = [task.update_time_us for task in self.tasks]
        changes += [grade.create_time_us for grade in self.grades]
        return max(changes, default=self.create_time_us)


@dataclass(frozen=True, slots=True)
class SubmissionPage:
    """A part of a list, whether it goes on after it, and the shards whose part is missing."""

    submissions: tuple[Submission, ...]
    more: bool
    unreachable: tuple[int, ...] = ()


@dataclass(slots=True)
class QueuedTask:
    """A task on its way to the queue; ``answer`` is a serialized Answer."""

    task: str
    tenant: str
    queue: str
    generation: int
    priority: int
    item_key: str
    answer: bytes
    not_before_us: int | None = None
    grade_by_us: int | None = None
    upgrade: bool = False


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that may be under lease."""

    task: str
    queue: str
    generation: int


@dataclass(frozen=True, slots=True)
class CancelledTask:
    """A task to take out of its queue."""

    task: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A task that was given up."""

    submission: SubmissionName
    task: Task


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """A part of a list, whether it goes on after it, and the shards whose part is missing."""

    letters: tuple[DeadLetter, ...]
    more: bool
    unreachable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters are meant; all that is empty or None says nothing."""

    queue: str = ""
    course: str = ""
    assignment: str = ""
    reason: str = ""
    given_up_after_us: int | None = None
    given_up_before_us: int | None = None


class RedriveFate(enum.Enum):
    """What became of one task that was to be redriven."""

    REDRIVEN = 1
    OPEN = 2
    CANCELLED = 3
    GRADED = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6


@dataclass(frozen=True, slots=True)
class Redriven:
    """What is open again, as the queue takes it; the fate of each task, in order; and where to see it."""

    opened: list[QueuedTask]
    fates: list[RedriveFate]
    positions: Positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriving:
    """What became of the dead letters of a filter: each with its fate, and where to see it.

    ``more``: the filter lists more than these. ``unreachable``: shards whose dead letters were not looked at.
    """

    fates: tuple[tuple[DeadLetter, RedriveFate], ...]
    more: bool
    unreachable: tuple[int, ...]
    positions: Positions


class QueueState(enum.Enum):
    """What a queue does with its tasks; the names are those of the public API."""

    RUNNING = 1
    PAUSED = 2
    DRAINING = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """The state of one queue; ``workers`` and ``credits`` are those of all schedulers that answered.

    Times that nobody has measured are None.
    """

    queue: str
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    oldest_age_seconds: float = 0.0
    workers: int = 0
    credits: int = 0
    state: QueueState = QueueState.RUNNING
    service_p50_seconds: float | None = None
    service_p90_seconds: float | None = None
    predicted_work_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conservation:
    """Where every accepted task is; see ``cinnabar.scheduler.v1``."""

    accepted: int
    open: int
    dead_lettered: int
    cancelled: int
    graded: int
    queued: int
    waiting: int
    leased: int
    balanced: bool
    missing: int = 0
    orphaned: int = 0
    sweep_time_us: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Submissions that changed, and where the change can be read; none says that following works."""

    submission_ids: tuple[str, ...]
    positions: Positions
