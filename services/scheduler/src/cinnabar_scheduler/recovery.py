"""Makes Redis disposable: rebuilds queues from the truth, sweeps up what was missed, expires leases."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from cinnabar_scheduler.outcomes import Outcomes
from cinnabar_scheduler.ports import Queue, QueueUnavailable, Store, StoreUnavailable

log = logging.getLogger(__name__)

EPOCH_CHECK_SECONDS = 0.25
EXPIRY_CHECK_SECONDS = 0.5
EXPIRY_BATCH = 1000
PAGE = 2000
# Answers of any size come with a page: one that storage could not send is asked for in smaller parts.
SMALLEST_PAGE = 10
LOCK_SECONDS = 30.0
# The sweep may use up to one part in so many of the time.
SWEEP_DUTY = 20


class Recovery:
    """Three loops that every scheduler runs; a lock keeps them from doing the same work twice."""

    def __init__(self, queue: Queue, store: Store, outcomes: Outcomes, *, sweep_seconds: float) -> None:
        self._queue = queue
        self._store = store
        self._outcomes = outcomes
        self._sweep_seconds = sweep_seconds
        self._next_sweep = time.monotonic() + sweep_seconds

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Recovery]:
        """Runs the loops."""
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(_every(EPOCH_CHECK_SECONDS, self.rebuild_once), name="recovery-epoch"),
                group.create_task(_every(EPOCH_CHECK_SECONDS, self.sweep_when_due), name="recovery-sweep"),
                group.create_task(_every(EXPIRY_CHECK_SECONDS, self.expire_once), name="recovery-expiry"),
            ]
            try:
                yield self
            finally:
                for loop in loops:
                    loop.cancel()

    async def rebuild_once(self) -> int:
        """Rebuilds all queues when the epoch is gone; returns the tasks put back."""
        if await self._queue.has_epoch() or not await self._queue.acquire("rebuild", seconds=LOCK_SECONDS):
            return 0
        try:
            started = time.monotonic()
            fence = int(time.time() * 1_000_000)
            if not await self._queue.begin_rebuild(fence):
                return 0
            restored = await self._restore("rebuild", only_missing=False)
            if not await self._queue.finish_rebuild(fence):
                return restored
            log.info(
                "queues rebuilt",
                extra={"tasks": restored, "seconds": round(time.monotonic() - started, 3)},
            )
            return restored
        finally:
            await self._queue.release("rebuild")

    async def sweep_when_due(self) -> int:
        """Sweeps when it is time; returns the tasks put back."""
        if time.monotonic() < self._next_sweep:
            return 0
        started = time.monotonic()
        try:
            return await self.sweep_once()
        finally:
            took = time.monotonic() - started
            self._next_sweep = time.monotonic() + max(self._sweep_seconds, SWEEP_DUTY * took)

    async def sweep_once(self) -> int:
        """Enqueues open tasks that no queue knows: those whose enqueue was lost."""
        if not await self._queue.acquire("sweep", seconds=LOCK_SECONDS):
            return 0
        try:
            restored = await self._restore("sweep", only_missing=True)
        finally:
            await self._queue.release("sweep")
        if restored:
            log.info("lost tasks queued", extra={"tasks": restored})
        return restored

    async def expire_once(self) -> int:
        """Takes back leases that ran out of time; returns how many."""
        total = 0
        for queue in await self._queue.queues():
            expired = await self._queue.expired(queue, EXPIRY_BATCH)
            if expired:
                log.info("leases expired", extra={"queue": queue, "count": len(expired)})
                await self._outcomes.expire(queue, expired)
            total += len(expired)
        return total

    async def _restore(self, lock: str, *, only_missing: bool) -> int:
        restored, size = 0, PAGE
        for shard in range(await self._store.shard_count()):
            after: tuple[str, str] | None = None
            while True:
                try:
                    page = await self._store.open_tasks(shard, after, size)
                except StoreUnavailable:
                    if size == SMALLEST_PAGE:
                        raise
                    size = max(SMALLEST_PAGE, size // 4)
                    continue
                tasks = page.tasks
                if only_missing and tasks:
                    missing = await self._queue.missing([(task.queue, task.task) for task in tasks])
                    tasks = [task for task in tasks if task.task in missing]
                if tasks:
                    restored += sum(await self._queue.enqueue(tasks))
                if page.cursor is None:
                    break
                after = page.cursor
                await self._queue.acquire(lock, seconds=LOCK_SECONDS)
        return restored


async def _every(seconds: float, run_once: Callable[[], Awaitable[object]]) -> None:
    """Ticks for ever; an outage of Redis or storage skips a tick."""
    while True:
        try:
            await run_once()
        except (QueueUnavailable, StoreUnavailable) as error:
            log.debug("recovery waits", extra={"cause": str(error)})
        await asyncio.sleep(seconds)
