"""The shared cache in memory, held to the same contract as Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from cinnabar_common.clock import Clock
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Hit, Message, Miss, SharedCacheUnavailable
from cinnabar_storage.records import Lsn, Position


class _Stored(NamedTuple):
    value: bytes
    position: Position
    until: float


_NOWHERE = Position(0, Lsn(0))


class MemoryCache:
    """Implements SharedCache. Processes are those who have the same object."""

    def __init__(self, *, max_age_seconds: float, lasting_seconds: float, clock: Clock) -> None:
        self._max_age = max_age_seconds
        self._lasting = lasting_seconds
        self._clock = clock
        self._stored: dict[CacheKey, _Stored] = {}
        self._listeners: set[asyncio.Queue[Message | None]] = set()

    def _find(self, key: CacheKey) -> _Stored | None:
        stored = self._stored.get(key)
        if stored is not None and stored.until <= self._clock.time():
            del self._stored[key]
            return None
        return stored

    async def get(self, key: CacheKey) -> Hit | Miss:
        now, stored = self._clock.time(), self._find(key)
        if stored is None:
            return Miss(int(now * 1000))
        return Hit(stored.value, stored.position, stored.until - now)

    async def put(self, key: CacheKey, value: bytes, position: Position, lease_ms: int) -> bool:
        until, known = lease_ms / 1000 + self._max_age, self._find(key)
        if until <= self._clock.time():
            return False
        if known is not None and known.position.shard == position.shard and known.position.lsn > position.lsn:
            return False
        self._stored[key] = _Stored(value, position, until)
        return True

    async def get_lasting(self, keys: Sequence[CacheKey]) -> dict[CacheKey, bytes]:
        found = ((key, self._find(key)) for key in keys)
        return {key: stored.value for key, stored in found if stored is not None}

    async def put_lasting(self, values: Mapping[CacheKey, bytes]) -> None:
        for key, value in values.items():
            self._stored[key] = _Stored(value, _NOWHERE, self._clock.time() + self._lasting)

    async def tell(self, message: Message) -> None:
        for key in message.keys:
            self._stored.pop(key, None)
        for listener in self._listeners:
            listener.put_nowait(message)

    async def messages(self) -> AsyncIterator[Message | None]:
        queue: asyncio.Queue[Message | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            yield None
            while True:
                message = await queue.get()
                if message is None:
                    raise SharedCacheUnavailable("cut")
                yield message
        finally:
            self._listeners.discard(queue)

    def flush(self) -> None:
        """Everything that is kept is lost."""
        self._stored.clear()

    def cut(self) -> None:
        """All who listen lose their connection."""
        for listener in self._listeners:
            listener.put_nowait(None)
