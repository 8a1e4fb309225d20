"""Composition of the cache: what is remembered here, what is shared, and who tells whom."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.health import Check
from cinnabar_common.metrics import Sample
from cinnabar_storage.adapters.redis_cache import redis_cache
from cinnabar_storage.cached.announcements import Announcements
from cinnabar_storage.cached.cache import Cache, Limits
from cinnabar_storage.cached.floors import Floors
from cinnabar_storage.cached.invalidation import CacheKey, Invalidations
from cinnabar_storage.cached.lru import Lru
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.metrics import announcement_samples, cache_samples
from cinnabar_storage.records import Position

_FLOOR_KEYS = 200_000


@dataclass(frozen=True, slots=True)
class Caching:
    """The parts that the service needs."""

    cache: Cache
    invalidations: Invalidations
    announcements: Announcements | None

    @property
    def checks(self) -> dict[str, Check]:
        """Of health: "cache" says whether processes hear each other; the service serves without."""
        return {} if self.announcements is None else {"cache": self.announcements.check}

    def samples(self) -> Iterator[Sample]:
        """For Prometheus."""
        yield from cache_samples(self.cache)
        if self.announcements is not None:
            yield from announcement_samples(self.announcements)


class _OwnOnly:
    """Implements Invalidations where nobody else has to know."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def changed(self, keys: Iterable[CacheKey], position: Position) -> None:
        self._cache.changed(list(keys), position)


@asynccontextmanager
async def caching(config: StorageConfig, clock: Clock | None = None) -> AsyncGenerator[Caching]:
    """The cache as configured, for the length of the block. Redis need not be there."""
    clock = clock or SystemClock()
    # No replica that is read from is further behind, nor does a read from it take longer.
    remember_seconds = config.replica_max_lag_seconds + config.replica_statement_seconds + 1
    async with AsyncExitStack() as exits:
        shared = None
        if config.redis_url:
            shared = await exits.enter_async_context(
                redis_cache(
                    config.redis_url,
                    timeout_seconds=config.redis_timeout_seconds,
                    max_age_seconds=config.cache_max_age_seconds,
                    lasting_seconds=config.cache_ttl_seconds,
                )
            )
        cache = Cache(
            shared,
            changing=Lru(max_entries=config.cache_entries, max_bytes=config.cache_bytes),
            lasting=Lru(max_entries=config.revision_cache_entries, max_bytes=config.revision_cache_bytes),
            floors=Floors(seconds=remember_seconds, max_keys=_FLOOR_KEYS, clock=clock),
            limits=Limits(
                max_age_seconds=config.cache_max_age_seconds,
                lasting_seconds=config.cache_ttl_seconds,
                max_shared_value_bytes=config.cache_max_value_bytes,
                max_shared_bytes=config.cache_shared_bytes,
            ),
            clock=clock,
        )
        await exits.enter_async_context(cache.running())
        if shared is None:
            yield Caching(cache, _OwnOnly(cache), None)
            return
        announcements = Announcements(
            cache, shared, max_age_seconds=config.cache_max_age_seconds, clock=clock
        )
        await exits.enter_async_context(announcements.running())
        yield Caching(cache, announcements, announcements)
