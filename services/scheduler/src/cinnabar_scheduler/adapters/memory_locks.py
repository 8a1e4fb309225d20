"""Locks in the memory of one process, for tests of what stands on them."""

from __future__ import annotations

from cinnabar_common.clock import Clock
from cinnabar_scheduler.ports import LocksUnavailable


class MemoryLocks:
    """Implements ports.LockStore. ``outage`` makes every call fail; ``flush`` loses everything."""

    def __init__(self, clock: Clock) -> None:
        self.outage = False
        self._clock = clock
        self._holders: dict[str, tuple[str, float]] = {}
        self._fences: dict[str, int] = {}

    def flush(self) -> None:
        """Loses everything, as FLUSHALL does."""
        self._holders.clear()
        self._fences.clear()

    def holder(self, name: str) -> str | None:
        """Token of whoever holds a lock now."""
        token, until = self._holders.get(name, ("", 0.0))
        return token if token and until > self._clock.time() else None

    async def take(self, name: str, token: str, ttl_seconds: float) -> int | None:
        self._reach()
        if self.holder(name) not in (None, token):
            return None
        self._holders[name] = (token, self._clock.time() + ttl_seconds)
        fence = max(self._fences.get(name, 0) + 1, int(self._clock.time() * 1_000_000))
        self._fences[name] = fence
        return fence

    async def renew(self, name: str, token: str, ttl_seconds: float) -> bool:
        self._reach()
        if self.holder(name) != token:
            return False
        self._holders[name] = (token, self._clock.time() + ttl_seconds)
        return True

    async def release(self, name: str, token: str) -> bool:
        self._reach()
        if self.holder(name) != token:
            return False
        del self._holders[name]
        return True

    def _reach(self) -> None:
        if self.outage:
            raise LocksUnavailable
