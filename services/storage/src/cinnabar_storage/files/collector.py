"""Collects files that nothing refers to: expired uploads, and objects without a row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain

from cinnabar_common.clock import Clock
from cinnabar_common.errors import SuiteError
from cinnabar_common.names import id_bucket
from cinnabar_storage.files.ports import Objects
from cinnabar_storage.files.records import FILES, STAGING, StoredObject, upload_of_key
from cinnabar_storage.records import Micros
from cinnabar_storage.shards.sharding import Shards

log = logging.getLogger(__name__)

BATCH = 200
"""Uploads or objects of one step."""
LATE_SECONDS = 60
"""An upload is collected so long after it expired: who verified it just before is still committing."""
DOOMED_SECONDS = 300
"""How long who dooms an upload has to delete it, before somebody else tries."""
ORPHAN_SECONDS = 24 * 3600
"""Objects without a row are collected at this age."""
STRAY_SECONDS = 600
"""A second look at an object without a row comes so much later: a row may be moving between shards."""
REST = 4
"""After each step it rests so many times as long as the step took."""
_MAX_SUSPECTS = 10_000
_PREFIXES = (STAGING, FILES)

Leadership = Callable[[], AbstractAsyncContextManager[bool]]
"""Entered, says whether this process alone collects for the length of the block."""


class Collector:
    """Deletes, always in this order: first says so in Postgres, then the object, then the row."""

    def __init__(
        self, shards: Shards, objects: Objects, clock: Clock, *, leadership: Leadership, seconds: float
    ) -> None:
        self._shards = shards
        self._objects = objects
        self._clock = clock
        self._leadership = leadership
        self._seconds = seconds
        self._suspects: dict[str, Micros] = {}
        self._cursor: tuple[int, str] = (0, "")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Collector]:
        """Collects inside of the block."""
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(self._loop(), name="collector")
            try:
                yield self
            finally:
                loop.cancel()

    async def _loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._seconds)
            try:
                async with self._leadership() as leads:
                    more = leads
                    while more:
                        began = loop.time()
                        more = await self.collect_expired() >= BATCH
                        more |= await self.collect_orphans()
                        await asyncio.sleep(REST * (loop.time() - began))
            except SuiteError as error:
                log.info("collecting is interrupted", extra={"error": error.message})

    def _now(self) -> Micros:
        return Micros(int(self._clock.time() * 1_000_000))

    async def collect_expired(self) -> int:
        """Deletes one batch of expired uploads of each shard; returns the size of the largest.

        Raises DependencyUnavailable, Overloaded: what is doomed by then comes again.
        """
        now = self._now()
        before, until = Micros(now - LATE_SECONDS * 1_000_000), Micros(now + DOOMED_SECONDS * 1_000_000)
        batches, _ = await self._shards.scatter_partly(
            lambda _, shard: shard.doom_uploads(before, until, BATCH)
        )
        doomed = list(chain.from_iterable(batches.values()))
        if doomed:
            await self._objects.delete([upload.object_key for upload in doomed])
            await self._shards.each(
                doomed,
                lambda upload: id_bucket(upload.upload_id),
                lambda _, shard, some: shard.drop_uploads(some),
            )
            log.info("uploads expired", extra={"count": len(doomed)})
        return max(map(len, batches.values()), default=0)

    async def collect_orphans(self) -> bool:
        """Looks at one page of objects, deletes those without a row; whether there are more in this round.

        An object is deleted when it is a day old and two looks, some minutes apart,
        found no row for it. Raises DependencyUnavailable, Overloaded.
        """
        prefix, after = self._cursor
        page = await self._objects.listed(_PREFIXES[prefix], after, BATCH)
        now = self._now()
        old = [one for one in page if one.modified < now - ORPHAN_SECONDS * 1_000_000]
        known = await self._known(old) if _PREFIXES[prefix] == FILES else set[str]()
        unknown = [one.key for one in old if one.key not in known]
        gone = [
            key
            for key in unknown
            if _PREFIXES[prefix] == STAGING or now - self._suspects.get(key, now) >= STRAY_SECONDS * 1_000_000
        ]
        await self._objects.delete(gone)
        if gone:
            log.info("objects without an upload deleted", extra={"count": len(gone)})
        for key in (*known, *gone):
            self._suspects.pop(key, None)
        for key in unknown:
            if len(self._suspects) < _MAX_SUSPECTS and key not in gone:
                self._suspects.setdefault(key, now)
        if len(page) == BATCH:
            self._cursor = (prefix, page[-1].key)
            return True
        self._cursor = ((prefix + 1) % len(_PREFIXES), "")
        return self._cursor[0] > 0

    async def _known(self, objects: Sequence[StoredObject]) -> set[str]:
        keys = [(*upload_of_key(one.key), one.key) for one in objects]
        if not keys:
            return set()
        # All shards are asked: while a bucket moves, either of two may have the row.
        found = await asyncio.gather(*(shard.known_objects(keys) for shard in self._shards))
        return set[str]().union(*found)
