"""Words of the queue: tasks, leases, outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NewType

from cinnabar_common.names import split_task_id
from cinnabar_common.queues import KNOWN

LeaseToken = NewType("LeaseToken", str)
QueueName = NewType("QueueName", str)


def fence_of(token: LeaseToken) -> int:
    """Number of the lease that a token is of."""
    return int(token.partition("-")[0])


# Queues that exist from the first start on, one for each kind of item.
KNOWN_QUEUES = tuple(map(QueueName, KNOWN))


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
    """A task to be queued, to be leased from ``ready_ms`` (unix time) on.

    ``ready_now``: nobody asked for that time, it is when the task came to be by some other machine's
    clock. Should that one be ahead, the task is ready all the same.
    """

    task: str
    tenant: str
    queue: QueueName
    generation: int
    head_start: HeadStart
    ready_ms: int
    item_key: str
    answer: bytes
    grade_by_ms: int | None = None
    ready_now: bool = False
    upgrade: bool = False

    def ready_at(self, now_ms: int) -> int:
        """When it is ready, seen at ``now_ms`` by the clock of the queue."""
        return min(self.ready_ms, now_ms) if self.ready_now else self.ready_ms


@dataclass(frozen=True, slots=True)
class Lease:
    """A task under lease; without a grade at ``grade_by_ms`` (unix time) it becomes a dead letter."""

    task: str
    token: LeaseToken
    generation: int
    delivery: int
    tenant: str
    queue: QueueName
    item_key: str
    answer: bytes
    grade_by_ms: int | None = None
    # Its grade replaces that of a fallback.
    upgrade: bool = False

    @property
    def fence(self) -> int:
        """Number of the lease; rises with every lease of the queue."""
        return fence_of(self.token)

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
    """A task out of time, under a lease that the finder may end it by.

    ``revoked`` is the token of the lease that was taken away for it.
    """

    task: str
    token: LeaseToken
    generation: int
    tenant: str
    revoked: LeaseToken | None = None


class Why(Enum):
    """Why a leased task comes back to its queue."""

    RETURNED = "returned"  # handed back unworked; counts as nothing
    FAILED = "failed"  # the grader could not grade; backs off
    UNAVAILABLE = "unavailable"  # something the grader needs is away; backs off, counted apart
    PERMANENT = "permanent"  # no retry can help; given up at once
    FAULT = "fault"  # the worker or the system was lost; at once, counted apart


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


class QueueState(Enum):
    """What a queue does."""

    RUNNING = "running"  # takes tasks and leases them
    PAUSED = "paused"  # takes tasks and leases none
    DRAINING = "draining"  # leases what it has; what may come in is decided elsewhere


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Counts of a queue, in tasks.

    ``oldest_ready_ms`` is the unix time at which the oldest of the tenants' first
    tasks became ready, None when nothing is; at most 1,000 tenants of a partition
    are looked at for it. ``tenant_ready`` are the ready tasks of the tenant asked
    for. ``tenants`` have ready work (with several partitions: in that of the
    most). ``capped`` are the ready tasks of tenants at their concurrency cap, of
    at most 1,000 such tenants of a partition.
    """

    ready: int
    delayed: int
    leased: int
    oldest_ready_ms: int | None
    tenant_ready: int = 0
    tenants: int = 0
    capped: int = 0
    state: QueueState = QueueState.RUNNING


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A task that a queue holds."""

    task: str
    tenant: str
    generation: int


@dataclass(frozen=True, slots=True)
class KnownTasks:
    """A page of tasks, perhaps empty, and the cursor of the next one (None: the end)."""

    tasks: list[KnownTask]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict to commit; ``blob`` is opaque here, ``artifacts`` are names of uploads that it refers to.

    ``doubts`` are the flags of one that a person should look at, else None, and
    ``max_score`` the points of its item.
    ``upgradable``: a fallback made it, and the item wishes it replaced.
    """

    score: float
    blob: bytes
    artifacts: tuple[str, ...] = ()
    doubts: tuple[str, ...] | None = None
    max_score: float = 0.0
    upgradable: bool = False


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
