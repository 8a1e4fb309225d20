"""What storage keeps, as the domain sees it.

Named tuples rather than dataclasses: batches are transposed into columns, and
a tuple is the cheapest thing that transposes. Times are whole microseconds
since 1970-01-01 UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, NewType

Micros = NewType("Micros", int)
Lsn = NewType("Lsn", int)
"""A position in a shard's write-ahead log, in bytes."""


class Position(NamedTuple):
    """How far a shard's log had come, and the epoch of the bucket map then (0 when not known)."""

    shard: int
    lsn: Lsn
    epoch: int = 0


class ReplicaState(NamedTuple):
    """How a replica is: whether it takes part in reads, and how far its log is behind the primary's.

    The lag is None when the replica does not answer. Its seconds are how long ago
    the primary was where the replica is now; 0 when nothing is missing.
    """

    in_rotation: bool
    lag_bytes: int | None
    lag_seconds: float | None


class NewTask(NamedTuple):
    """A task that is created with its submission."""

    item_id: str
    queue: str


class NewSubmission(NamedTuple):
    """A submission to be created; ``request_id`` is None when there is none."""

    submission_id: str
    tenant: str
    course: str
    assignment: str
    revision_id: str
    author: str
    request_id: str | None
    fingerprint: bytes
    priority: int
    answers: bytes
    max_score: float
    create_time: Micros
    tasks: tuple[NewTask, ...]
    grade_after: Micros | None = None
    grade_by: Micros | None = None
    existing_only: bool = False
    """Only look for the request id: of the other fields tenant, author and fingerprint count."""
    upload_ids: tuple[str, ...] = ()
    """Ids of the uploads that its answers refer to."""


class CreateStatus(IntEnum):
    """What became of a new submission; numbers as in the proto."""

    CREATED = 1
    DUPLICATE = 2
    CONFLICT = 3
    UNAVAILABLE = 4
    ABSENT = 5
    UPLOAD_REFUSED = 6


class Created(NamedTuple):
    """The fate of one new submission, and the id that is stored."""

    status: CreateStatus
    submission_id: str


class Doubt(NamedTuple):
    """Why a person should look at a grade, and what is needed to show it without reading it."""

    flags: tuple[str, ...]
    max_score: float


class Graded(NamedTuple):
    """A grade and the fence under which it may be written; ``doubt`` when a person should look at it."""

    tenant: str
    submission_id: str
    item_id: str
    generation: int
    fence: int
    lease_token: str
    worker: str
    score: float
    grade: bytes
    doubt: Doubt | None = None
    upgradable: bool = False
    """A fallback made it, and it may be replaced later."""


class GivenUp(NamedTuple):
    """The end of a task that could not be graded, and its fence."""

    tenant: str
    submission_id: str
    item_id: str
    generation: int
    fence: int
    lease_token: str
    worker: str
    reason: str
    attempts: int


Outcome = Graded | GivenUp


class CommitResult(IntEnum):
    """What became of an outcome; numbers as in the proto."""

    COMMITTED = 1
    ALREADY_GRADED = 2
    SUPERSEDED = 3
    UNAVAILABLE = 4


class Place(NamedTuple):
    """The course and assignment that something must be of; of any where one is empty."""

    course: str = ""
    assignment: str = ""


ANYWHERE = Place()


class RedriveResult(IntEnum):
    """What became of a task that was to be redriven; numbers as in the proto."""

    REDRIVEN = 1
    NOT_DEAD_OPEN = 2
    NOT_DEAD_CANCELLED = 3
    NOT_DEAD_GRADED = 4
    NOT_FOUND = 5
    UNAVAILABLE = 6


class TaskState(IntEnum):
    """Where a task without a grade can be; numbers as in the proto."""

    OPEN = 1
    DEAD_LETTERED = 2
    CANCELLED = 3


class Task(NamedTuple):
    """A task that has no grade. The grade of a ``shadow`` is to be compared, not to count."""

    submission_id: str
    item_id: str
    queue: str
    generation: int
    state: int
    reason: str
    attempts: int
    update_time: Micros
    regrade_id: str = ""
    shadow: bool = False


class GradeKind(IntEnum):
    """How a grade came to be; numbers as in the proto. A shadow does not count."""

    GRADED = 1
    OVERRIDDEN = 2
    SHADOW = 3
    PROMOTED = 4


class Grade(NamedTuple):
    """A committed grade. ``revision_id`` is empty for that of the submission.

    ``actor``, ``reason`` and ``regrade_id`` are read with the history only.
    """

    submission_id: str
    item_id: str
    generation: int
    score: float
    grade: bytes
    create_time: Micros
    kind: int = GradeKind.GRADED
    revision_id: str = ""
    regrade_id: str = ""
    actor: str = ""
    reason: str = ""


class SubmissionRow(NamedTuple):
    """A submission without its tasks and grades."""

    submission_id: str
    tenant: str
    course: str
    assignment: str
    revision_id: str
    author: str
    priority: int
    answers: bytes
    max_score: float
    create_time: Micros
    grade_after: Micros | None
    grade_by: Micros | None


class Submission(NamedTuple):
    """A submission, its tasks without a grade, and the grade that counts of each item. Without shadows."""

    row: SubmissionRow
    tasks: list[Task]
    grades: list[Grade]


class OpenTask(NamedTuple):
    """An open task with everything the queue needs; ``grade_by`` is None too when it was lifted."""

    submission_id: str
    item_id: str
    tenant: str
    queue: str
    generation: int
    priority: int
    revision_id: str
    answers: bytes
    create_time: Micros
    grade_after: Micros | None
    grade_by: Micros | None
    upgrade: bool = False
    """Its grade replaces that of a fallback."""


class TaskCounts(NamedTuple):
    """Where the tasks of a shard are: ``accepted`` is the sum of the others, or something is lost."""

    accepted: int
    open: int
    dead_lettered: int
    cancelled: int
    graded: int


class QueueControl(NamedTuple):
    """What an operator wants of a queue; ``state`` is the scheduler's number, ``actor`` who asked last."""

    queue: str
    state: int
    actor: str


class DeadLetter(NamedTuple):
    """A dead-lettered task and where it belongs."""

    task: Task
    course: str
    assignment: str


class SubmissionKey(NamedTuple):
    """A submission of a tenant."""

    tenant: str
    submission_id: str


class TaskKey(NamedTuple):
    """A task: (submission, item). The empty key comes before all others."""

    submission_id: str
    item_id: str


class OwnedTaskKey(NamedTuple):
    """A task of a tenant."""

    tenant: str
    submission_id: str
    item_id: str


class RevisionKey(NamedTuple):
    """A revision of a tenant's assignment."""

    tenant: str
    revision_id: str


class AssignmentKey(NamedTuple):
    """An assignment; in its current revision when ``revision_id`` is empty."""

    tenant: str
    course: str
    assignment: str
    revision_id: str


class NewRevision(NamedTuple):
    """The content of an assignment under a revision id that the caller made."""

    tenant: str
    course: str
    assignment: str
    revision_id: str
    spec: bytes


class Assignment(NamedTuple):
    """An assignment in one of its revisions."""

    tenant: str
    course: str
    assignment: str
    revision_id: str
    spec: bytes
    create_time: Micros
    update_time: Micros


class SubmissionQuery(NamedTuple):
    """Which submissions to list, newest first; ``author`` and ``before`` may be empty."""

    tenant: str
    course: str
    assignment: str
    author: str
    before: str
    limit: int


class SubmissionPage(NamedTuple):
    """A part of a list, whether it goes on, and the shards whose part is missing."""

    submissions: list[Submission]
    more: bool
    unreachable: Sequence[int] = ()


class AssignmentPage(NamedTuple):
    """A part of a list, and whether it goes on."""

    assignments: list[Assignment]
    more: bool


class DeadLetterPage(NamedTuple):
    """A part of a list, whether it goes on, and the shards whose part is missing."""

    letters: list[DeadLetter]
    more: bool
    unreachable: Sequence[int] = ()


class AssignmentQuery(NamedTuple):
    """Which assignments to list, by id; ``after`` may be empty."""

    tenant: str
    course: str
    after: str
    limit: int


class RevisionQuery(NamedTuple):
    """Which revisions of an assignment to list, newest first; ``before`` may be empty."""

    tenant: str
    course: str
    assignment: str
    before: str
    limit: int


class DeadLetterQuery(NamedTuple):
    """Which dead letters to list, by (submission, item); texts may be empty, which is "any".

    ``reason`` is a part of the reason, letter by letter; the times are from
    ``given_up_after``, inclusive, to ``given_up_before``, exclusive.
    """

    tenant: str
    queue: str
    after: TaskKey
    limit: int
    course: str = ""
    assignment: str = ""
    reason: str = ""
    given_up_after: Micros | None = None
    given_up_before: Micros | None = None
