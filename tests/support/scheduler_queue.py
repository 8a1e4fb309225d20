"""Builders for tests of the queue, and a clock that stands still."""

import itertools
from dataclasses import dataclass

from cinnabar_scheduler.tasks import HeadStart, Lease, LeaseToken, QueueName, Task

QUEUE = QueueName("free-text")
# Credits enough for everything, regrades too.
FREE = 1_000_000
START_MS = 1_700_000_000_000
_numbers = itertools.count()


@dataclass(slots=True)
class ManualClock:
    """Implements Clock; time passes only when it is told to."""

    now_ms: int = START_MS

    def time(self) -> float:
        return self.now_ms / 1000

    def monotonic(self) -> float:
        return self.now_ms / 1000

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.now_ms += round(seconds * 1000)


def task(
    name: str = "",
    *,
    tenant: str = "t1",
    queue: QueueName = QUEUE,
    generation: int = 1,
    head_start: HeadStart = HeadStart.NORMAL,
    ready_ms: int = START_MS,
    item_key: str = "rev1/q1",
    answer: bytes = b"",
    grade_by_ms: int | None = None,
    ready_now: bool = False,
) -> Task:
    """A task that is ready at once, or at ``ready_ms`` where that is later."""
    return Task(
        task=f"{name or f'sub{next(_numbers):09d}'}/q1",
        tenant=tenant,
        queue=queue,
        generation=generation,
        head_start=head_start,
        ready_ms=ready_ms,
        item_key=item_key,
        answer=answer,
        grade_by_ms=grade_by_ms,
        ready_now=ready_now,
    )


def lease(
    name: str = "", *, queue: QueueName = QUEUE, tenant: str = "t1", item_key: str = "rev1/q1"
) -> Lease:
    """A lease that no queue gave."""
    number = next(_numbers)
    token = LeaseToken(f"{number + 1}-nonce")
    return Lease(name or f"sub{number:09d}/q1", token, 1, 1, tenant, queue, item_key, b"")


def held(leases: list[Lease]) -> list[tuple[str, LeaseToken]]:
    """(task, token) of leases."""
    return [(one.task, one.token) for one in leases]
