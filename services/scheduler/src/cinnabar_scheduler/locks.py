"""The distributed lock: bounded waiting, renewal, and loss that is told at once.

A lock saves work; it does not protect data. Whatever may not happen twice is
refused under the fence of the holder, or is harmless when it happens twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from cinnabar_common.clock import Clock
from cinnabar_scheduler.ports import LockStore, LocksUnavailable

log = logging.getLogger(__name__)

# Tries for a lock that somebody else holds wait for half of it to all of it.
RETRY_SECONDS = 0.25
RENEWALS_PER_TTL = 3
# Part of the TTL that the holder gives up: clocks that run at rates as far apart still agree who holds it.
MARGIN = 0.1


class LockLost(Exception):
    """The lock ran out, or its store lost it, while its holder worked."""


class LockTimeout(Exception):
    """Somebody else held the lock for as long as the caller would wait."""


class Held:
    """One holder's view of a lock; ``fence`` is greater than that of every holder before.

    It errs on the safe side: time runs from the moment at which the store was asked.
    """

    def __init__(self, store: LockStore, clock: Clock, name: str, ttl_seconds: float) -> None:
        self.name = name
        self.ttl_seconds = ttl_seconds
        self.fence = 0
        # Told when ``seconds_left`` changed other than by time.
        self.on_change: Callable[[], None] = lambda: None
        self._store = store
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._until = 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds for which nobody else can hold the lock; 0 when it is lost."""
        return max(0.0, self._until - self._clock.monotonic())

    @property
    def valid(self) -> bool:
        """Whether nobody else can hold the lock now."""
        return self.seconds_left > 0

    async def take(self) -> bool:
        """One try to take it. Raises LocksUnavailable: then it may have been taken, and another try tells."""
        asked = self._clock.monotonic()
        fence = await self._store.take(self.name, self._token, self.ttl_seconds)
        if fence is None:
            return False
        self.fence = fence
        self._extend(asked)
        return self.valid  # an answer that comes too late is none

    async def confirm(self) -> bool:
        """Renews it; False: it is lost, for good, and the body of ``Locks.hold`` is being cancelled.

        Raises LocksUnavailable: nothing is known, and it runs out unless a later renewal works.
        """
        asked = self._clock.monotonic()
        if not self.valid:
            return False
        if await self._store.renew(self.name, self._token, self.ttl_seconds) and self.valid:
            self._extend(asked)
            return True
        self._lose()
        return False

    async def release(self) -> None:
        """Gives it back if it is still this holder's; one that cannot be given back runs out."""
        self._lose()
        try:
            await self._store.release(self.name, self._token)
        except LocksUnavailable as error:
            log.debug("lock left to run out", extra={"lock": self.name, "cause": str(error.__cause__)})

    def _extend(self, asked: float) -> None:
        self._until = asked + self.ttl_seconds * (1 - MARGIN)
        self.on_change()

    def _lose(self) -> None:
        self._until = 0.0
        self.on_change()


class Locks:
    """The locks of a store. ``sleep`` is for tests."""

    def __init__(
        self, store: LockStore, clock: Clock, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep

    async def acquire(self, name: str, *, ttl_seconds: float, wait_seconds: float) -> Held | None:
        """Takes the lock, waiting at most so long for it; None: somebody else had it all the time.

        At least one try is made. Raises LocksUnavailable when the store did not answer the last one.
        """
        held = Held(self._store, self._clock, name, ttl_seconds)
        deadline = self._clock.monotonic() + wait_seconds
        while True:
            missed: LocksUnavailable | None = None
            try:
                if await held.take():
                    return held
            except LocksUnavailable as error:
                missed = error
            except asyncio.CancelledError:
                await held.release()  # the store may have given it
                raise
            pause = RETRY_SECONDS * random.uniform(0.5, 1.0)
            if self._clock.monotonic() + pause > deadline:
                await held.release()
                if missed is not None:
                    raise missed
                return None
            await self._sleep(pause)

    @asynccontextmanager
    async def hold(self, name: str, *, ttl_seconds: float, wait_seconds: float) -> AsyncGenerator[Held]:
        """Holds the lock for the length of the block, renewing it in the background.

        When it is lost the block is cancelled and LockLost raised: at once when the
        store says so, and otherwise before it can have run out at the store. Raises
        LockTimeout and LocksUnavailable when it is not acquired within ``wait_seconds``.
        On the way out it is released, so that the next one need not wait.
        """
        held = await self.acquire(name, ttl_seconds=ttl_seconds, wait_seconds=wait_seconds)
        if held is None:
            raise LockTimeout(name)
        loop = asyncio.get_running_loop()
        keeper = loop.create_task(_keep(held), name=f"lock-{name}")
        deadline = asyncio.timeout(held.seconds_left)
        try:
            async with deadline:

                def moved() -> None:
                    if not deadline.expired():
                        deadline.reschedule(loop.time() + held.seconds_left)

                held.on_change = moved
                try:
                    yield held
                finally:
                    held.on_change = lambda: None
        except TimeoutError:
            if deadline.expired():
                raise LockLost(name) from None
            raise
        finally:
            keeper.cancel()
            await asyncio.wait((keeper,))
            await held.release()


async def _keep(held: Held) -> None:
    """Renews until the lock is lost."""
    every = held.ttl_seconds / RENEWALS_PER_TTL
    pause = every
    while True:
        await asyncio.sleep(pause)
        try:
            async with asyncio.timeout(every):
                if not await held.confirm():
                    return
            pause = every
        except (LocksUnavailable, TimeoutError):
            pause = every / RENEWALS_PER_TTL
            log.warning("lock not renewed", extra={"lock": held.name, "left": round(held.seconds_left, 2)})
