"""What the queues do, as this gateway last heard: asked once a second, never by a call that is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from cinnabar_common.clock import Clock
from cinnabar_common.errors import QueueDraining, SuiteError
from cinnabar_gateway.ports import Queue
from cinnabar_gateway.records import QueueState

log = logging.getLogger(__name__)


class QueueStates:
    """Which queues drain; use inside ``async with states.running()``."""

    def __init__(
        self, queue: Queue, clock: Clock, *, refresh_seconds: float = 1.0, forget_seconds: float = 10.0
    ) -> None:
        """What was heard is believed for ``forget_seconds``: then nothing is refused any more.

        Submissions are to be accepted while the schedulers are away, and a drain
        that is forgotten costs no more than a queue that is not empty yet.
        """
        self._queue = queue
        self._clock = clock
        self._refresh = refresh_seconds
        self._forget = forget_seconds
        self._heard = -float("inf")
        self.draining: frozenset[str] = frozenset()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[QueueStates]:
        """Asks now and then."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._follow(), name="queue-states")
            try:
                yield self
            finally:
                task.cancel()

    def refusal(self, queues: Iterable[str]) -> QueueDraining | None:
        """Why a submission that needs these queues cannot be taken now."""
        draining = next((queue for queue in queues if queue in self.draining), None)
        return QueueDraining(draining) if draining is not None else None

    async def refresh_once(self) -> frozenset[str]:
        """Asks once; returns the queues that drain, as far as is known."""
        try:
            counts = await self._queue.counts()
        except SuiteError as error:
            if self.draining and self._clock.monotonic() - self._heard > self._forget:
                log.warning(
                    "drained queues forgotten",
                    extra={"queues": sorted(self.draining), "error": error.message},
                )
                self.draining = frozenset()
            return self.draining
        self._heard = self._clock.monotonic()
        self.draining = frozenset(one.queue for one in counts if one.state is QueueState.DRAINING)
        return self.draining

    async def _follow(self) -> None:
        while True:
            await self.refresh_once()
            await asyncio.sleep(self._refresh)
