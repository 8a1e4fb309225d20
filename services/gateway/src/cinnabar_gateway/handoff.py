"""Hands committed tasks to the queue without anybody waiting for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from cinnabar_common.errors import SuiteError
from cinnabar_gateway.ports import Queue
from cinnabar_gateway.records import QueuedTask

log = logging.getLogger(__name__)


class Handoff:
    """A bounded buffer in front of the queue; use inside ``async with handoff.running()``.

    What does not fit, or cannot be delivered, is dropped and counted: the tasks
    are committed, and recovery enqueues whatever the queue does not know.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        max_batch: int = 1000,
        max_pending: int = 50_000,
        max_pending_bytes: int = 64 * 1024 * 1024,
        lanes: int = 2,
    ) -> None:
        """Bounds are in tasks, but for ``max_pending_bytes``: bytes of answers."""
        self._queue = queue
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._lanes = lanes
        self._waiting: deque[QueuedTask] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.failed = 0

    @property
    def pending(self) -> int:
        """Tasks that wait to be handed over."""
        return len(self._waiting)

    def offer(self, tasks: Sequence[QueuedTask]) -> None:
        """Takes over as many as fit. Never waits, never raises."""
        if not tasks:
            return
        size = sum(len(task.answer) for task in tasks)
        if len(self._waiting) + len(tasks) <= self._max_pending and (
            self._bytes + size <= self._max_pending_bytes
        ):
            self._waiting.extend(tasks)
            self._bytes += size
            self._arrived.set()
            return
        self.dropped += len(tasks)
        log.warning("enqueue dropped", extra={"tasks": len(tasks), "dropped_total": self.dropped})

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Handoff]:
        """Runs the lanes; on exit gives what waits one last chance."""
        async with asyncio.TaskGroup() as group:
            lanes = [group.create_task(self._lane(), name=f"handoff-{lane}") for lane in range(self._lanes)]
            try:
                yield self
            finally:
                for lane in lanes:
                    lane.cancel()
        failed = self.failed
        while self.failed == failed and await self.run_once():
            pass

    async def run_once(self) -> int:
        """Hands over one batch; returns its size."""
        batch: list[QueuedTask] = []
        while self._waiting and len(batch) < self._max_batch:
            task = self._waiting.popleft()
            self._bytes -= len(task.answer)
            batch.append(task)
        if not batch:
            return 0
        try:
            await self._queue.enqueue(batch)
        except asyncio.CancelledError:  # it may have arrived; what is there already is not queued twice
            self._waiting.extendleft(reversed(batch))
            self._bytes += sum(len(task.answer) for task in batch)
            raise
        except SuiteError as error:
            self.failed += len(batch)
            log.warning(
                "enqueue failed",
                extra={"tasks": len(batch), "failed_total": self.failed, "error": error.message},
            )
        return len(batch)

    async def _lane(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self.run_once()
