"""Words of the queue: tasks, leases, outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NewType

from cinnabar_common.names import split_task_id

LeaseToken = NewType("LeaseToken", str)
QueueName = NewType("QueueName", str)

# Queues that exist from the first start on, one for each kind of item.
KNOWN_QUEUES = tuple(QueueName(name) for name in ("choice", "numeric", "text", "free-text"))


class HeadStart(IntEnum):
    """Head start of each class on the lowest one, in ms.

    A task is served in the order of (time it became ready - head start), so a
    lower class waits at most the difference longer than a higher one that came
    at the same time.
    """

    REGRADE = 0
    LOW = 30_000
    NORMAL = 60_000
    HIGH = 120_000
    RECOVERY = 180_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task to be queued."""

    task: str
    tenant: str
    queue: QueueName
    generation: int
    head_start: HeadStart
    ready_ms: int
    item_key: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class Lease:
    """A task under lease."""

    task: str
    token: LeaseToken
    generation: int
    delivery: int
    tenant: str
    queue: QueueName
    item_key: str
    answer: bytes

    @property
    def fence(self) -> int:
        """Number of the lease; rises with every lease of the queue."""
        return int(self.token.partition("-")[0])

    @property
    def submission(self) -> str:
        """Id of the submission."""
        return split_task_id(self.task)[0]

    @property
    def item(self) -> str:
        """Id of the item."""
        return split_task_id(self.task)[1]

    @property
    def revision(self) -> str:
        """Id of the assignment's revision."""
        return self.item_key.partition("/")[0]


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A lease that ran out of time."""

    task: str
    token: LeaseToken
    generation: int
    tenant: str


class Why(Enum):
    """Why a leased task comes back to its queue."""

    RETURNED = "returned"  # handed back unworked; counts as nothing
    FAILED = "failed"  # the grader could not grade; backs off
    FAULT = "fault"  # the worker or the system was lost; at once


class Verdict(Enum):
    """What became of a task that came back."""

    LOST = "lost"  # the token holds no lease any more
    QUEUED = "queued"
    GIVEN_UP = "given up"  # to be committed as a dead letter, then removed


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Answer to one task given back."""

    verdict: Verdict
    deliveries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a task is tried again.

    Failures (told by the grader) and faults (a lost worker) are counted apart.
    """

    backoff_base_ms: int = 1_000
    backoff_cap_ms: int = 60_000
    max_failures: int = 4
    max_faults: int = 6


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """State of a queue; ``oldest_ready_ms`` is a unix time, None when nothing is ready."""

    ready: int
    delayed: int
    leased: int
    oldest_ready_ms: int | None


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict to commit; ``blob`` is opaque here."""

    score: float
    blob: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The end of a task that could not be graded."""

    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class FencedOutcome:
    """What to write about a task, and the fence under which it may be written."""

    tenant: str
    task: str
    generation: int
    fence: int
    token: LeaseToken
    worker: str
    outcome: Grade | DeadLetter


class Committed(Enum):
    """What storage did with an outcome."""

    COMMITTED = "committed"
    ALREADY_GRADED = "already graded"
    SUPERSEDED = "superseded"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a shard's write-ahead log."""

    shard: int
    lsn: int


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """Where the tasks of a shard are; ``accepted`` is counted apart from the others."""

    accepted: int
    open: int
    dead_lettered: int
    cancelled: int
    graded: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a sweep found and mended; ``ended_ms`` is a unix time.

    ``missing`` tasks were open and in no queue; ``orphaned`` ones were in a queue and not open.
    """

    missing: int
    orphaned: int
    ended_ms: int
