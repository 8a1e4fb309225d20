"""What the queue in memory keeps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cinnabar_scheduler.tasks import HeadStart, LeaseToken, QueueName, QueueState, Task, Why


@dataclass(slots=True)
class Entry:
    """A task in a queue; ready unless under lease (``token``) or delayed (``due_ms``)."""

    task: Task
    head_start: int
    attempts: Counter[Why] = field(default_factory=Counter[Why])
    deliveries: int = 0
    token: LeaseToken | None = None
    expiry_ms: int = 0
    due_ms: int | None = None
    overdue_ms: int | None = None
    progress: tuple[LeaseToken, bytes] | None = None
    """What was told of it under a lease."""

    @property
    def is_ready(self) -> bool:
        """Whether it may be leased."""
        return self.token is None and self.due_ms is None

    @property
    def is_regrade(self) -> bool:
        """Whether it is of the class that leaves the last credit alone."""
        return self.head_start == HeadStart.REGRADE

    @property
    def order(self) -> tuple[int, str]:
        """Place within its tenant."""
        return self.task.ready_ms - self.head_start, self.task.task


@dataclass(slots=True)
class Turns:
    """Passes of the tenants with ready work (below their cap, at it), and of those that left lately."""

    floor: int = 0
    waiting: dict[str, int] = field(default_factory=dict[str, int])
    parked: dict[str, int] = field(default_factory=dict[str, int])
    left: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class State:
    """What the store keeps; lost when it is flushed."""

    entries: dict[QueueName, dict[str, Entry]] = field(default_factory=dict[QueueName, dict[str, Entry]])
    turns: dict[QueueName, Turns] = field(default_factory=dict[QueueName, Turns])
    control: dict[QueueName, QueueState] = field(default_factory=dict[QueueName, QueueState])
    rebuild: int | None = None
    complete: bool = False
