"""grpc.health.v1 for a service: overall under "", each dependency under its name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from grpc_health.v1 import health, health_pb2

log = logging.getLogger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Check = Callable[[], Awaitable[None]]


class HealthBoard:
    """What the process says about itself.

    Overall health means "send me calls": dependencies have their own names, so
    that one that is down does not take every replica out of rotation. ``overall``
    is for what leaves the process without any use at all.
    """

    def __init__(
        self,
        checks: Mapping[str, Check] | None = None,
        *,
        overall: Check | None = None,
        interval_seconds: float = 2.0,
        timeout_seconds: float = 2.0,
    ) -> None:
        self.servicer = health.aio.HealthServicer()
        self._checks = dict(checks or {})
        if overall is not None:
            self._checks[""] = overall
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._last: dict[str, bool] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[HealthBoard]:
        """SERVING inside, unless the overall check fails, NOT_SERVING after; checks run on their interval."""
        await self.run_once()
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(self._loop(), name="health-checks")
            if "" not in self._checks:
                await self.servicer.set("", SERVING)
            try:
                yield self
            finally:
                loop.cancel()
                await self.servicer.enter_graceful_shutdown()

    async def drain(self) -> None:
        """Says NOT_SERVING for good, before the server stops taking calls."""
        await self.servicer.enter_graceful_shutdown()

    async def run_once(self) -> dict[str, bool]:
        """Runs all checks together, each within the timeout; an exception is unhealthy."""
        verdicts = await asyncio.gather(*(self._verdict(name) for name in self._checks))
        for name, healthy in zip(self._checks, verdicts, strict=True):
            if self._last.get(name) != healthy:
                log.info("health changed", extra={"dependency": name, "healthy": healthy})
            self._last[name] = healthy
            await self.servicer.set(name, SERVING if healthy else NOT_SERVING)
        return dict(self._last)

    async def _verdict(self, name: str) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await self._checks[name]()
        except Exception as error:  # any failure at all means unhealthy
            log.debug("health check failed", extra={"dependency": name}, exc_info=error)
            return False
        return True

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.run_once()
