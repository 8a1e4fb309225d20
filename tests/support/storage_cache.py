"""A cache of one process as tests use it, over a source that counts how often it is read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from cinnabar_storage.adapters.memory.cache import MemoryCache
from cinnabar_storage.cached.cache import Cache, Limits, Loaded
from cinnabar_storage.cached.floors import Floors
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.lru import Lru
from cinnabar_storage.cached.shared import SharedCache
from cinnabar_storage.records import Lsn, Position
from tests.support.scheduler_queue import ManualClock

MAX_AGE = 1.0
LASTING = 3600.0
REMEMBER = 9.0


def at(lsn: int, shard: int = 0) -> Position:
    """A position."""
    return Position(shard, Lsn(lsn))


def cache_key(text: str) -> CacheKey:
    """Some key."""
    return CacheKey(text)


def memory_cache(clock: ManualClock) -> MemoryCache:
    """A shared cache with the ages of this module."""
    return MemoryCache(max_age_seconds=MAX_AGE, lasting_seconds=LASTING, clock=clock)


def cache_of(
    shared: SharedCache | None,
    clock: ManualClock,
    *,
    max_entries: int = 1000,
    max_shared_bytes: int = 100_000,
) -> Cache:
    """A process's cache with the ages of this module."""
    return Cache(
        shared,
        changing=Lru(max_entries=max_entries, max_bytes=1_000_000),
        lasting=Lru(max_entries=max_entries, max_bytes=1_000_000),
        floors=Floors(seconds=REMEMBER, max_keys=1000, clock=clock),
        limits=Limits(
            max_age_seconds=MAX_AGE,
            lasting_seconds=LASTING,
            max_shared_value_bytes=1000,
            max_shared_bytes=max_shared_bytes,
        ),
        clock=clock,
    )


@dataclass
class Source:
    """What is read when no cache has it: one value and the position that it shows."""

    value: bytes | None = b"one"
    position: Position = field(default_factory=lambda: at(10))
    loads: int = 0
    asked: list[Lsn] = field(default_factory=list[Lsn])
    error: Exception | None = None
    gate: asyncio.Event | None = None
    """Reads find what there is, and then wait for it."""

    async def load(self, lsn: Lsn) -> Loaded | None:
        """A read."""
        self.loads += 1
        self.asked.append(lsn)
        found, error = self.value and Loaded(self.value, self.position), self.error
        if self.gate is not None:
            await self.gate.wait()
        if error is not None:
            raise error
        return found or None


async def settled() -> None:
    """Returns when everything that can go on without waiting has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(task: asyncio.Task[object]) -> None:
    """Returns when a cancelled task is done."""
    with suppress(asyncio.CancelledError):
        await task
