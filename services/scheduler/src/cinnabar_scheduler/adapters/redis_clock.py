"""The time of the Redis server: what schedulers agree on, whatever their own clocks say."""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import Redis

from cinnabar_common.clock import Clock
from cinnabar_common.redis_connection import REDIS_ERRORS
from cinnabar_scheduler.adapters.redis_epoch import SUITE_PREFIX
from cinnabar_scheduler.adapters.redis_scripts import Script

log = logging.getLogger(__name__)

SYNC_SECONDS = 5.0
# The answer that came quickest is the most exact one.
SAMPLES = 3


class RedisClock:
    """Implements Clock: this machine's clock, corrected by its distance from the server's.

    Exact to half a round trip. The correction is 0 until the server was first
    reached, and stays as it was while the server is away.
    """

    def __init__(self, redis: Redis, local: Clock) -> None:
        self._time = Script(redis, "time", shared=None)
        self._local = local
        self._offset = 0.0

    def time(self) -> float:
        return self._local.time() + self._offset

    def monotonic(self) -> float:
        return self._local.monotonic()

    async def sync(self) -> None:
        """Measures the distance. Raises one of REDIS_ERRORS."""
        best: tuple[float, float] | None = None
        for _ in range(SAMPLES):
            asked, began = self._local.time(), self._local.monotonic()
            seconds, micros = await self._time(SUITE_PREFIX)
            took = self._local.monotonic() - began
            offset = int(seconds) + int(micros) / 1_000_000 - (asked + took / 2)
            best = min(best or (took, offset), (took, offset))
        assert best is not None
        self._offset = best[1]

    async def run(self) -> None:
        """Measures at once and again and again, for ever."""
        while True:
            try:
                await self.sync()
            except REDIS_ERRORS as error:
                log.debug("clock not measured", extra={"cause": str(error)})
            await asyncio.sleep(SYNC_SECONDS)
