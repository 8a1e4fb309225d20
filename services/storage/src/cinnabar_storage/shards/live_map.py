"""The map of buckets as this process knows it: asked for regularly, and at once when a shard disagrees."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from cinnabar_common.errors import DependencyUnavailable, SuiteError
from cinnabar_storage.ports import Shard
from cinnabar_storage.shards.bucket_map import Claims, ShardMap, merged

log = logging.getLogger(__name__)
_ASK_SECONDS = 1.0
_PAUSE_SECONDS = 0.1


class NobodyOwnsAnything(Exception):
    """no shard owns any bucket: run `python -m cinnabar_storage migrate`"""

    def __str__(self) -> str:
        return str(self.__doc__)


class LiveMap:
    """Implements sharding.MapSource; made by :func:`live_map`."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._known: ShardMap | None = None
        self._silent = False
        self._lock = asyncio.Lock()
        self._started = 0

    @property
    def current(self) -> ShardMap:
        if self._known is None:
            raise NobodyOwnsAnything
        return self._known

    async def refresh(self) -> ShardMap:
        wanted = self._started + 1  # what began before this call may have missed what the caller knows
        async with self._lock:
            if self._started < wanted:
                self._started += 1
                await self._ask()
        return self.current

    async def reach(self, epoch: int) -> None:
        if self.current.epoch < epoch and (await self.refresh()).epoch < epoch and self._silent:
            raise DependencyUnavailable("postgres")

    async def _ask(self) -> None:
        answers = await asyncio.gather(*map(_claims, self._shards))
        claims = {shard: answer for shard, answer in enumerate(answers) if answer is not None}
        before = self._known
        self._known = merged(claims, len(self._shards), before)
        self._silent = len(claims) < len(self._shards)
        if self._known is not None and (before is None or before.epoch != self._known.epoch):
            owned = [len(self._known.owned_by(shard)) for shard in range(len(self._shards))]
            log.info("bucket map", extra={"epoch": self._known.epoch, "owned": owned})

    async def poll(self, seconds: float) -> None:
        """Keeps the map fresh until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()


async def _claims(shard: Shard) -> Claims | None:
    """What the shard claims; None when it does not answer in time."""
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await shard.claims()
    except (SuiteError, TimeoutError):
        return None


@asynccontextmanager
async def live_map(
    shards: Sequence[Shard], *, poll_seconds: float, wait_seconds: float
) -> AsyncGenerator[LiveMap]:
    """A map that is kept fresh for the length of the block.

    Raises NobodyOwnsAnything when that stays so for ``wait_seconds``.
    """
    found = LiveMap(shards)
    deadline = asyncio.get_running_loop().time() + wait_seconds
    while True:
        try:
            await found.refresh()
            break
        except NobodyOwnsAnything:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.poll(poll_seconds), name="bucket-map")
        try:
            yield found
        finally:
            task.cancel()
