"""The leader's work for language models: their costs are written down, what stood in for them is replaced."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from cinnabar_common.clock import Clock
from cinnabar_scheduler.model_calls import BreakerState
from cinnabar_scheduler.model_permits import ModelCalls
from cinnabar_scheduler.ports import Queue
from cinnabar_scheduler.tasks import Task

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 2.0
LOOK_SECONDS = 1.0
UPGRADE_SECONDS = 30.0
"""Between two rounds while nothing happened to the breakers."""
UPGRADES_A_ROUND = 200
"""On each shard: other work goes first anyway, but what waits needs memory in Redis."""

Tick = tuple[str, float, Callable[[], Awaitable[object]]]


class UpgradeStore(Protocol):
    """Where grades of fallbacks are known. Every method raises StoreUnavailable."""

    async def open_upgrades(self, limit: int) -> tuple[list[Task], bool]:
        """Opens tasks for some of them, at most ``limit`` on each shard; whether there may be more at once.

        Nothing is opened twice: an item that is being graded already is left alone.
        """
        ...


class ModelUpkeep:
    """What one scheduler does for all. Harmless when two do it: see Ledger and UpgradeStore."""

    def __init__(
        self,
        calls: ModelCalls,
        store: UpgradeStore,
        queue: Queue,
        clock: Clock,
        *,
        upgrade_seconds: float = UPGRADE_SECONDS,
    ) -> None:
        self._calls = calls
        self._store = store
        self._queue = queue
        self._clock = clock
        self._seconds = upgrade_seconds
        self._next = 0.0

    def ticks(self) -> list[Tick]:
        """What is to be done how often, by name."""
        return [
            ("model-budgets", CHECKPOINT_SECONDS, self._calls.checkpoint),
            ("model-upgrades", LOOK_SECONDS, self.upgrade_when_due),
        ]

    async def upgrade_when_due(self) -> int:
        """Opens a round of upgrades when it is time and no breaker stands open; returns how many.

        A breaker that has just closed makes it time.
        """
        states = await self._calls.providers()
        if any(one.breaker is not BreakerState.CLOSED for one in states):
            self._next = 0.0
            return 0
        if self._clock.monotonic() < self._next:
            return 0
        tasks, more = await self._store.open_upgrades(UPGRADES_A_ROUND)
        if not more:
            self._next = self._clock.monotonic() + self._seconds
        if tasks:
            # What does not arrive is found by the sweep.
            await self._queue.enqueue(tasks)
            log.info("upgrades opened", extra={"tasks": len(tasks)})
        return len(tasks)
