"""grpc.health.v1 for a service: overall under "", each dependency under its name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from grpc_health.v1 import health, health_pb2

from cinnabar_common.loop_watch import LoopWatch

log = logging.getLogger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EVENT_LOOP = "event_loop"
"""The name under which a loop that stood still is told."""
Check = Callable[[], Awaitable[None]]


class _Servicer(health.aio.HealthServicer):
    """Answers from the board; calls that waited while the loop stood still are told so at once."""

    def __init__(self, watch: LoopWatch) -> None:
        super().__init__()
        self._watch = watch

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        if request.service in ("", EVENT_LOOP) and self._watch.blocked:
            return health_pb2.HealthCheckResponse(status=NOT_SERVING)
        return await super().Check(request, context)


class HealthBoard:
    """What the process says about itself.

    Overall health means "send me calls": dependencies have their own names, so
    that one that is down does not take every replica out of rotation. ``overall``
    is for what leaves the process without any use at all. An event loop that was
    blocked (see `LoopWatch`) is part of it.
    """

    def __init__(
        self,
        checks: Mapping[str, Check] | None = None,
        *,
        overall: Check | None = None,
        interval_seconds: float = 2.0,
        timeout_seconds: float = 2.0,
        watch: LoopWatch | None = None,
    ) -> None:
        self._watch = watch or LoopWatch()
        self.servicer: health.aio.HealthServicer = _Servicer(self._watch)
        self._overall = overall
        self._checks = {**(checks or {}), EVENT_LOOP: self._watch.check, "": self._whole}
        self._interval = interval_seconds
        self._timeout = timeout_seconds
        self._last: dict[str, bool] = {}
        self._hanging: dict[str, asyncio.Task[None]] = {}
        self._due = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[HealthBoard]:
        """SERVING inside, unless the overall check fails, NOT_SERVING after; checks run on their interval."""
        with self._watch.running(self._due.set):
            await self.run_once()
            try:
                async with asyncio.TaskGroup() as group:
                    loop = group.create_task(self._loop(), name="health-checks")
                    try:
                        yield self
                    finally:
                        loop.cancel()
                        await self.servicer.enter_graceful_shutdown()
            finally:
                for check in self._hanging.values():
                    check.cancel()

    async def drain(self) -> None:
        """Says NOT_SERVING for good, before the server stops taking calls."""
        await self.servicer.enter_graceful_shutdown()

    async def run_once(self) -> dict[str, bool]:
        """Runs all checks together, each within the timeout; returns which dependencies are healthy.

        Only one that returns is healthy: an exception of any kind and a check that hangs are not, and
        one that does not even end when it is cancelled is not begun again before it has.
        """
        verdicts = await asyncio.gather(*(self._verdict(name) for name in self._checks))
        for name, healthy in zip(self._checks, verdicts, strict=True):
            if self._last.get(name) != healthy:
                log.info("health changed", extra={"dependency": name, "healthy": healthy})
            self._last[name] = healthy
            await self.servicer.set(name, SERVING if healthy else NOT_SERVING)
        return {name: healthy for name, healthy in self._last.items() if name not in ("", EVENT_LOOP)}

    async def _verdict(self, name: str) -> bool:
        if name in self._hanging:
            return False
        check = asyncio.create_task(self._run(name), name=f"health-{name or 'overall'}")
        try:
            await asyncio.wait((check,), timeout=self._timeout)
        finally:
            if not check.done():
                check.cancel()
                self._hanging[name] = check
                check.add_done_callback(lambda done: self._ended(name, done))
        if not check.done() or check.cancelled():
            return False
        if (error := check.exception()) is not None:
            log.debug("health check failed", extra={"dependency": name}, exc_info=error)
            return False
        return True

    async def _run(self, name: str) -> None:
        await self._checks[name]()

    def _ended(self, name: str, check: asyncio.Task[None]) -> None:
        self._hanging.pop(name, None)
        if not check.cancelled():
            check.exception()  # whatever it is, it was told as unhealthy

    async def _whole(self) -> None:
        await self._watch.check()
        if self._overall is not None:
            await self._overall()

    async def _loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            await self.run_once()
