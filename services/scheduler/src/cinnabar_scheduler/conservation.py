"""The law of conservation: every accepted task is somewhere, and in one place only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from cinnabar_scheduler.ports import Queue, Store, SweepBoard
from cinnabar_scheduler.tasks import Findings, QueueCounts, TaskCounts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where all tasks are, counted in Postgres and in Redis at about the same time.

    ``queued``, ``waiting`` (delayed, or backing off) and ``leased`` are counts of
    Redis; ``findings`` are those of the last sweep, None before the first.
    """

    stored: TaskCounts
    queued: int
    waiting: int
    leased: int
    findings: Findings | None

    @property
    def balanced(self) -> bool:
        """Whether what was accepted is exactly what is open, given up, cancelled or graded."""
        stored = self.stored
        return stored.accepted == stored.open + stored.dead_lettered + stored.cancelled + stored.graded

    @property
    def missing(self) -> int:
        """Open tasks that the last sweep did not find in Redis, and queued."""
        return self.findings.missing if self.findings else 0

    @property
    def orphaned(self) -> int:
        """Tasks in Redis that the last sweep did not find open, and removed."""
        return self.findings.orphaned if self.findings else 0

    def by_place(self) -> dict[str, int]:
        """Tasks by place: the open ones of Postgres, where Redis has them, and the ended ones."""
        return {
            "open": self.stored.open,
            "dead_lettered": self.stored.dead_lettered,
            "cancelled": self.stored.cancelled,
            "graded": self.stored.graded,
            "queued": self.queued,
            "waiting": self.waiting,
            "leased": self.leased,
        }


def snapshot(stored: TaskCounts, queues: Sequence[QueueCounts], findings: Findings | None) -> Snapshot:
    """Adds queues up."""
    return Snapshot(
        stored,
        queued=sum(one.ready for one in queues),
        waiting=sum(one.delayed for one in queues),
        leased=sum(one.leased for one in queues),
        findings=findings,
    )


class Conservation:
    """Counts on demand. ``last`` is what the leader counted last; None on a scheduler that does not lead."""

    def __init__(self, queue: Queue, store: Store, board: SweepBoard) -> None:
        self._queue = queue
        self._store = store
        self._board = board
        self.last: Snapshot | None = None

    async def take(self) -> Snapshot:
        """Counts everything now. Raises QueueUnavailable and StoreUnavailable: a part is no answer."""
        stored = await self._store.count_tasks()
        queues = await asyncio.gather(*map(self._queue.counts, await self._queue.queues()))
        return snapshot(stored, queues, await self._board.last())
