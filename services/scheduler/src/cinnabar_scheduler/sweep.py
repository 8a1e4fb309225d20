"""The anti-entropy sweep: Redis is made to hold exactly the open tasks of Postgres."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from cinnabar_scheduler.open_tasks import PAGE, each_shard, open_pages
from cinnabar_scheduler.ports import Queue, Store, SweepBoard
from cinnabar_scheduler.tasks import Findings, KnownTask, LeaseToken, QueueName, Task

log = logging.getLogger(__name__)

# A task may be on its way from one to the other; what is, has arrived after so long.
SETTLE_SECONDS = 0.25


class EpochLost(Exception):
    """Redis lost data while it was swept; a rebuild is what it needs."""


class Sweep:
    """Both directions, each suspect looked at twice, some time apart.

    A sweep by a leader that is none any more is harmless. Queueing is refused for a
    task that is there; one that was graded meanwhile is an orphan, whose grade the
    fence refuses and the next sweep removes. A task removed wrongly (an operator
    redrove it in the moment between look and removal) is missing to the next sweep.
    """

    def __init__(
        self,
        queue: Queue,
        store: Store,
        board: SweepBoard,
        cancel: Callable[[Sequence[LeaseToken]], Awaitable[None]],
        *,
        settle_seconds: float = SETTLE_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._store = store
        self._board = board
        self._cancel = cancel
        self._settle_seconds = settle_seconds
        self._now = now
        # Seconds that the last run, or the one under way, only waited.
        self.rested = 0.0

    async def run(self) -> Findings:
        """Sweeps once, mends what it finds and writes the findings on the board.

        What cannot be looked up now (a shard is away) is left alone in the backward
        direction, and ends the sweep in the forward one. Raises EpochLost,
        StoreUnavailable, QueueUnavailable; what was mended by then stays so.
        """
        self.rested = 0.0
        orphaned = 0
        for queue in sorted(await self._queue.queues()):
            orphaned += await self._backward(queue)
        missing = await each_shard(range(await self._store.shard_count()), self._forward)
        findings = Findings(missing, orphaned, int(self._now() * 1000))
        if missing or orphaned:
            log.warning("sweep found", extra={"missing": missing, "orphaned": orphaned})
        await self._board.publish(findings)
        return findings

    async def _backward(self, queue: QueueName) -> int:
        """Removes what Redis holds and Postgres has not open in that generation; returns how many."""
        removed = 0
        cursor: str | None = None
        while True:
            page = await self._queue.known(queue, cursor, PAGE)
            suspects = await self._not_open(page.tasks)
            if suspects:
                removed += await self._remove(queue, suspects)
            cursor = page.cursor
            if cursor is None:
                return removed

    async def _remove(self, queue: QueueName, suspects: Sequence[KnownTask]) -> int:
        await self._settle()
        gone = await self._queue.missing([(queue, one.task) for one in suspects])
        orphans = await self._not_open([one for one in suspects if one.task not in gone])
        if not orphans:
            return 0
        removed, tokens = await self._queue.remove(queue, [(one.task, one.generation) for one in orphans])
        await self._cancel(tokens)
        return removed

    async def _not_open(self, tasks: Sequence[KnownTask]) -> list[KnownTask]:
        """Those that are not open in their generation, for certain."""
        if not tasks:
            return []
        generations = await self._store.open_generations([(one.tenant, one.task) for one in tasks])
        return [
            one
            for one, generation in zip(tasks, generations, strict=True)
            if generation is not None and generation != one.generation
        ]

    async def _forward(self, shard: int) -> int:
        """Queues what Postgres has open and Redis does not hold; returns how many."""
        queued = 0
        async with aclosing(open_pages(self._store, shard)) as pages:
            async for tasks in pages:
                suspects = await self._absent(tasks)
                if suspects:
                    queued += await self._add(suspects)
        return queued

    async def _add(self, suspects: Sequence[Task]) -> int:
        await self._settle()
        absent = await self._absent(suspects)
        if not absent:
            return 0
        if not await self._queue.has_epoch():
            raise EpochLost
        generations = await self._store.open_generations([(one.tenant, one.task) for one in absent])
        open_ones = [
            one for one, generation in zip(absent, generations, strict=True) if generation == one.generation
        ]
        return sum(await self._queue.enqueue(open_ones)) if open_ones else 0

    async def _settle(self) -> None:
        await asyncio.sleep(self._settle_seconds)
        self.rested += self._settle_seconds

    async def _absent(self, tasks: Sequence[Task]) -> list[Task]:
        if not tasks:
            return []
        absent = await self._queue.missing([(one.queue, one.task) for one in tasks])
        return [one for one in tasks if one.task in absent]
