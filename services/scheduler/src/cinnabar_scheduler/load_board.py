"""The loads of the queues that workers serve, counted once for all who want to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from cinnabar_scheduler.load import Load, Loads
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import QueueName

log = logging.getLogger(__name__)


class LoadBoard:
    """Counts every queue that some worker on this scheduler serves, once in an interval.

    What it costs grows with the queues, not with the workers.
    """

    def __init__(
        self, loads: Loads, sessions: Callable[[], Sequence[WorkerSession]], *, interval_seconds: float
    ) -> None:
        self._loads = loads
        self._sessions = sessions
        self._interval = interval_seconds
        self._counted: dict[QueueName, Load] = {}
        self.round = 0
        """Rises with every count."""

    def of(self, queues: Collection[QueueName]) -> list[Load]:
        """Of these queues, those that the last round counted, by name."""
        return [self._counted[queue] for queue in sorted(queues) if queue in self._counted]

    async def run(self) -> None:
        """Counts for ever."""
        while True:
            await self.run_once()
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """One round. A queue that cannot be counted now is left out of it."""
        served = {queue for session in self._sessions() for queue in session.queues}
        counted: dict[QueueName, Load] = {}
        for queue in served:
            try:
                counted[queue] = await self._loads.of(queue)
            except QueueUnavailable:
                log.debug("queue not counted", extra={"queue": queue})
                break  # nor will the others be
        self._counted = counted
        self.round += 1
