"""Few at once: those who wait for locks of Postgres must not take all connections with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from cinnabar_common.errors import Overloaded


class Turns:
    """At most ``at_once`` are inside, the others wait in the order in which they came."""

    def __init__(self, name: str, *, at_once: int, max_waiting: int) -> None:
        self._name = name
        self._inside = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._max_waiting = max_waiting

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """One is inside for the length of the block. Overloaded when ``max_waiting`` wait already."""
        if self._waiting >= self._max_waiting:
            raise Overloaded(self._name)
        self._waiting += 1
        try:
            await self._inside.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._inside.release()
