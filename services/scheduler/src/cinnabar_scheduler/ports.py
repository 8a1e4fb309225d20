"""What the scheduler's domain needs from outside. The docstrings are the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cinnabar_common.names import UploadName
from cinnabar_scheduler.policy import Policy
from cinnabar_scheduler.tasks import (
    Committed,
    ExpiredLease,
    FencedOutcome,
    Findings,
    GivenBack,
    KnownTasks,
    Lease,
    LeaseToken,
    Position,
    QueueCounts,
    QueueName,
    QueueState,
    Task,
    TaskCounts,
    Why,
)


class PolicySource(Protocol):
    """The policy in force."""

    @property
    def current(self) -> Policy:
        """What is in force now."""
        ...

    def on_change(self, told: Callable[[], None]) -> None:
        """``told`` is called after every change of ``current``."""
        ...


class QueueUnavailable(Exception):
    """The queue's store cannot be reached; nothing is known to have been done."""


@dataclass(frozen=True, slots=True)
class Leased:
    """New leases, and the unix ms at which there is more (0 at once, None: nothing is delayed)."""

    leases: list[Lease]
    next_due_ms: int | None


class Queue(Protocol):
    """All queues. Each call is atomic per queue and safe to repeat.

    Every method raises QueueUnavailable.
    """

    async def enqueue(self, tasks: Sequence[Task]) -> list[bool]:
        """Adds tasks that are not there in this or a later generation; for each whether it was added."""
        ...

    async def missing(self, tasks: Sequence[tuple[QueueName, str]]) -> set[str]:
        """Those of the task ids that no queue knows."""
        ...

    async def lease(self, queue: QueueName, limit: int, *, free: int) -> Leased:
        """Leases up to ``limit`` ready tasks, due delayed ones included; fewer when their answers are large.

        ``free`` are the credits now open for the queue at this scheduler, at least
        ``limit``: the last one of them is not spent on a regrade. Order: tenants below
        their cap take turns by weight; within a tenant by ready time minus head start.
        A paused queue leases nothing.
        """
        ...

    async def extend(self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]]) -> list[LeaseToken]:
        """Renews (task, token) leases; returns the tokens that hold none any more."""
        ...

    async def give_back(
        self, queue: QueueName, held: Sequence[tuple[str, LeaseToken]], why: Why
    ) -> list[GivenBack]:
        """Queues leased tasks again, or gives them up when their attempts are used up.

        Failures, absences of what graders need, and faults are counted apart. Whatever
        was an attempt comes back before all other classes. A task given up stays under
        its lease until it is removed.
        """
        ...

    async def remove(
        self, queue: QueueName, tasks: Sequence[tuple[str, int]]
    ) -> tuple[int, list[LeaseToken]]:
        """Forgets (task, generation) up to that generation.

        Returns how many there were, and the tokens of the leases among them.
        """
        ...

    async def expired(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        """Leases out of time. Each is held for this caller for a while."""
        ...

    async def overdue(self, queue: QueueName, limit: int) -> list[ExpiredLease]:
        """Tasks past their ``grade_by_ms``, wherever they wait, each put under a fresh lease of the caller.

        ``revoked`` of each is the token of the lease that it was under, which holds
        nothing any more. One that the caller does not end is found again later.
        """
        ...

    async def known(self, queue: QueueName, cursor: str | None, limit: int) -> KnownTasks:
        """Walks over every task of the queue, about ``limit`` at a time, from cursor None on.

        Sees all that are there throughout; may show some twice.
        """
        ...

    async def control(self, queue: QueueName, state: QueueState) -> None:
        """Sets what the queue does, until the store loses its data."""
        ...

    async def states(self) -> dict[QueueName, QueueState]:
        """What each of the queues does."""
        ...

    async def counts(self, queue: QueueName, tenant: str | None = None) -> QueueCounts:
        """Counts of one queue."""
        ...

    async def queues(self) -> set[QueueName]:
        """Names of all queues that have ever been used since the data was last lost."""
        ...

    async def has_epoch(self) -> bool:
        """Whether all queues are complete: False after the store, or a part of it, lost its data."""
        ...

    async def begin_rebuild(self, fence: int) -> bool:
        """Marks all queues as incomplete; False when a rebuild of a higher fence has begun.

        Tasks stay where they are; those of another layout of partitions are dropped.
        """
        ...

    async def finish_rebuild(self, fence: int) -> bool:
        """Declares all queues complete; False when a mark of this rebuild is gone: begin again.

        Marks go with a loss of data and with the begin of another rebuild.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenTasks:
    """A page of open tasks and the cursor of the next one (None: the end)."""

    tasks: list[Task]
    cursor: tuple[str, str] | None


class StoreUnavailable(Exception):
    """Storage cannot be reached now."""


class Store(Protocol):
    """The truth. Every method raises StoreUnavailable."""

    async def commit(self, outcomes: Sequence[FencedOutcome]) -> tuple[list[Committed], list[Position]]:
        """Commits outcomes under their fences; one result per outcome, and where to read them."""
        ...

    async def items(self, revisions: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        """Serialized items by item key "{revision}/{item}", of all (tenant, revision) that exist."""
        ...

    async def shard_count(self) -> int:
        """Number of shards."""
        ...

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        """A page of the open tasks of a shard, by (submission, item), with what came to it by ``epoch``."""
        ...

    async def open_generations(self, tasks: Sequence[tuple[str, str]]) -> list[int | None]:
        """For each (tenant, task) the generation that is open now, 0 when none is.

        None: its shard cannot be reached, so nothing is known.
        """
        ...

    async def arrivals(self) -> tuple[int, list[int]]:
        """An epoch of the shards, and of each shard by index the one in which tasks last moved to it."""
        ...

    async def count_tasks(self) -> TaskCounts:
        """Where all tasks are, each shard in one snapshot of it. What moves between shards counts once."""
        ...

    async def set_control(self, queue: QueueName, state: QueueState, actor: str) -> None:
        """Remembers what an operator wants of a queue."""
        ...

    async def controls(self) -> dict[QueueName, QueueState]:
        """What operators want of queues; those never spoken of are left out."""
        ...


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is; ``sha256`` are 32 bytes."""

    content_type: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link to a file, good until ``expire_ms`` (unix time)."""

    url: str
    expire_ms: int


@dataclass(frozen=True, slots=True)
class ArtifactForm:
    """How to upload an artifact: a form to ``url``, with ``fields`` before the file, until ``expire_ms``."""

    name: UploadName
    url: str
    fields: tuple[tuple[str, str], ...]
    expire_ms: int


class ArtifactState(Enum):
    """Whether a grade may refer to an artifact."""

    READY = "ready"
    REFUSED = "refused"  # it is not there, not as announced, or not of this task
    UNAVAILABLE = "unavailable"  # nobody can look now


@dataclass(frozen=True, slots=True)
class CheckedArtifact:
    """Whether a grade may refer to an artifact, and what it is when it may."""

    state: ArtifactState
    facts: FileFacts | None


class FileStore(Protocol):
    """Where files are kept. Every method raises DependencyUnavailable and the refusals of storage."""

    async def file_link(self, tenant: str, submission: str, upload: str) -> FileLink | None:
        """A link to a file of a submission, for readers beside us; None when it has no such file."""
        ...

    async def prepare_artifact(
        self, tenant: str, submission: str, item: str, facts: FileFacts
    ) -> ArtifactForm:
        """Announces an artifact of a task."""
        ...

    async def check_artifacts(
        self, tenant: str, submission: str, item: str, uploads: Sequence[str]
    ) -> list[CheckedArtifact]:
        """Whether a grade of the task may refer to these uploads, which may read what was uploaded."""
        ...


@dataclass(frozen=True, slots=True)
class Changed:
    """Submissions that changed, and where to read the change."""

    submissions: list[str]
    positions: list[Position]


class Bus(Protocol):
    """Tells the other schedulers. Delivery is at most once, and failure is silent."""

    async def publish_changed(self, changed: Changed) -> None:
        """Tells every other scheduler what changed."""
        ...

    async def publish_cancelled(self, tokens: Sequence[LeaseToken]) -> None:
        """Tells every other scheduler which leases are no longer wanted."""
        ...


class LocksUnavailable(Exception):
    """The store of locks cannot be reached; nothing is known to have been done."""


class LockStore(Protocol):
    """What a distributed lock stands on; each call is atomic. ``token`` is of one holder, once.

    Every method raises LocksUnavailable.
    """

    async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
        """Takes a lock that nobody holds, for a time; None when somebody does.

        Returns its fencing number, which is greater than every one before, also
        than those from before a loss of the store (numbers start from its time in
        us). A token that holds the lock already takes it again.
        """
        ...

    async def renew(self, name: str, token: str, ttl_seconds: float) -> bool:
        """Holds a lock for a time from now on; False when the token does not hold it any more."""
        ...

    async def release(self, name: str, token: str) -> bool:
        """Gives a lock back; False when the token does not hold it any more."""
        ...


class ProgressBoard(Protocol):
    """Where it is kept how far tasks under lease are. Every method raises QueueUnavailable.

    What is kept is lost with the lease, with the task, with the store, and after some time.
    """

    async def keep(self, queue: QueueName, told: Sequence[tuple[str, LeaseToken, bytes]]) -> list[LeaseToken]:
        """Replaces what is known of (task, token of its lease, payload).

        Returns the tokens that hold no lease any more: of those nothing is kept.
        """
        ...

    async def of(self, queue: QueueName, tasks: Sequence[tuple[str, int]]) -> list[bytes]:
        """What was told last of each (task, generation) under the lease that it is under; b"" for nothing."""
        ...


class SweepBoard(Protocol):
    """Where the leader writes down what its sweeps found. Every method raises QueueUnavailable."""

    async def publish(self, findings: Findings) -> None:
        """Replaces the findings of the sweep before."""
        ...

    async def last(self) -> Findings | None:
        """Those of the last sweep of any leader; None when there was none since the store lost its data."""
        ...
