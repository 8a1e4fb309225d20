"""Followers of the audit: work that is done after the fact, and may lag, but never in the way of others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from cinnabar_common.clock import Clock, SystemClock

log = logging.getLogger(__name__)

REST_FACTOR = 4
"""A follower rests so many times as long as it worked: it takes at most a fifth of a core."""
_LONGEST_PAUSE_SECONDS = 30.0


class Stepped(NamedTuple):
    """What one step did: rows that it took, and whether more may be waiting already."""

    rows: int
    more: bool


class Follower:
    """Takes one step after the other, and rests in between.

    ``step`` reads the next rows, does its work with them and remembers how far
    it came, all or nothing. Any number of processes may run the same follower:
    the step sees to it that one of them works at a time.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], Awaitable[Stepped]],
        *,
        poll_seconds: float,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._poll_seconds = poll_seconds
        self._clock = clock or SystemClock()
        self._failures = 0

    async def run_once(self) -> float:
        """One step; returns for how many seconds to rest.

        A step that fails is logged and taken again, later each time: whatever is
        wrong, the service goes on without its follower.
        """
        begin = self._clock.monotonic()
        try:
            stepped = await self._step()
        except Exception as error:
            log.warning(
                "follower failed",
                extra={"follower": self.name, "failures": self._failures + 1},
                exc_info=error,
            )
            pause = min(_LONGEST_PAUSE_SECONDS, self._poll_seconds * 2**self._failures)
            self._failures = min(self._failures + 1, 10)
            return pause
        if self._failures:
            log.info("follower goes on", extra={"follower": self.name})
            self._failures = 0
        rest = REST_FACTOR * (self._clock.monotonic() - begin)
        return rest if stepped.more else max(rest, self._poll_seconds)

    async def run(self) -> None:
        """Follows until it is cancelled."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = await self.run_once()


@asynccontextmanager
async def following(followers: Sequence[Follower]) -> AsyncGenerator[None]:
    """The followers run inside of the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follower.run(), name=follower.name) for follower in followers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
