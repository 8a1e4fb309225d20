"""One scheduler at a time leads; any of the others takes over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cinnabar_scheduler.locks import Held, LockLost, Locks, LockTimeout
from cinnabar_scheduler.ports import LocksUnavailable

log = logging.getLogger(__name__)

LOCK = "leader"
# A leader that died is followed after at most so long, and the time between two tries for the lock.
TTL_SECONDS = 3.0
WAIT_SECONDS = 60.0
RETRY_SECONDS = 0.25


class Leadership:
    """The candidate of one scheduler. ``work`` runs while it leads, and is cancelled when it does no more.

    Cancellation is not instant: a process that was stopped goes on, when it wakes,
    with whatever it was at, until its loop comes to the timer. So all of the work
    must be harmless when it is done by a leader that is none any more.
    """

    def __init__(
        self, locks: Locks, work: Callable[[Held], Awaitable[None]], *, ttl_seconds: float = TTL_SECONDS
    ) -> None:
        self._locks = locks
        self._work = work
        self._ttl = ttl_seconds
        self._held: Held | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this scheduler leads now."""
        return self._held is not None and self._held.valid

    async def run(self) -> None:
        """Stands for ever. When it is cancelled the lock is given back, and the next one follows at once."""
        while True:
            try:
                async with self._locks.hold(LOCK, ttl_seconds=self._ttl, wait_seconds=WAIT_SECONDS) as held:
                    await self._lead(held)
            except LockTimeout:
                log.debug("another scheduler leads")
            except LockLost:
                log.warning("leadership lost")
            except LocksUnavailable as error:
                log.debug("no leadership", extra={"cause": str(error.__cause__)})
                await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self, held: Held) -> None:
        log.info("leading", extra={"fence": held.fence})
        self._held = held
        try:
            await self._work(held)
        finally:
            self._held = None
