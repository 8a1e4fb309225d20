"""Which queues there are in Redis, in how many partitions, and whether they hold all that they should."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

from redis.asyncio import Redis

from cinnabar_scheduler.adapters.redis_scripts import Script
from cinnabar_scheduler.policy import Policy
from cinnabar_scheduler.tasks import KNOWN_QUEUES, QueueName

SUITE_PREFIX = "cinnabar:{suite}:"
# Number of partitions by queue, of every queue that was ever used.
QUEUES_KEY = SUITE_PREFIX + "queues"
EPOCH_KEY = SUITE_PREFIX + "epoch"

_PARTITION_KEYS = (
    "turns|regrade-turns|parked|left|floor|ready:.*|regrade:.*|delayed|leases|deadlines"
    "|running|tenants|body|state|fence|control|epoch"
)
# Keys that live as long as the data in them; every other key has a TTL.
PERMANENT_KEY_PATTERN = rf"cinnabar:(\{{suite\}}:(queues|epoch)|\{{[a-z0-9-]+:\d+/\d+\}}:({_PARTITION_KEYS}))"


class Layout:
    """Partitions of the queues; fixed while a scheduler runs."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def count(self, queue: QueueName) -> int:
        """Number of partitions of a queue."""
        return self._policy.queue(queue).partitions

    def prefix(self, queue: QueueName, index: int) -> str:
        """Of all keys of a partition; the hash tag keeps them on one node of a cluster."""
        return prefix_of(queue, index, self.count(queue))

    def prefixes(self, queue: QueueName) -> list[str]:
        """Those of all partitions of a queue."""
        return [self.prefix(queue, index) for index in range(self.count(queue))]

    def index_of(self, queue: QueueName, task: str) -> int:
        """Partition of a task; that of its submission, the same in every process."""
        count = self.count(queue)
        return zlib.crc32(task.partition("/")[0].encode()) % count if count > 1 else 0


def prefix_of(queue: str, index: int, count: int) -> str:
    """Of a partition in any layout."""
    return f"cinnabar:{{{queue}:{index}/{count}}}:"


class Epoch:
    """Marks of completeness: one in each partition, and one for the whole.

    A part of the store that lost its data, was restarted with old data, or was
    taken over by a replica that may lag carries no mark that holds.
    """

    def __init__(self, redis: Redis, layout: Layout) -> None:
        self._redis = cast("Any", redis)
        self._layout = layout
        self._mark = Script(redis, "mark")
        self._drop = Script(redis, "drop")

    async def queues(self) -> set[QueueName]:
        """All queues."""
        return {*(await self._registry()), *KNOWN_QUEUES}

    async def register(self, queue: QueueName) -> None:
        """Lets a queue take part that is used for the first time; a lost mark is left to be seen."""
        if await self._redis.hexists(QUEUES_KEY, queue):
            return
        mark = await self._mark(SUITE_PREFIX, "look", 0)
        if mark:
            for prefix in self._layout.prefixes(queue):
                await self._mark(prefix, "copy", mark[0], "complete" if mark[1] else "open")
        await self._redis.hset(QUEUES_KEY, queue, self._layout.count(queue))

    async def holds(self) -> bool:
        """Whether everything is marked as complete by one and the same rebuild, in this layout."""
        mark = await self._mark(SUITE_PREFIX, "look", 0)
        if not mark or not mark[1]:
            return False
        registry = await self._registry()
        queues = {*registry, *KNOWN_QUEUES}
        if any(registry.get(queue) != self._layout.count(queue) for queue in queues):
            return False
        for prefix in self._prefixes(queues):
            if await self._mark(prefix, "look", 0) != mark:
                return False
        return True

    async def begin(self, fence: int) -> bool:
        """Marks everything as incomplete, and drops what is left of other layouts."""
        if not await self._do("begin", fence, SUITE_PREFIX):
            return False
        registry = await self._registry()
        queues = {*registry, *KNOWN_QUEUES}
        for prefix in self._prefixes(queues):
            if not await self._do("begin", fence, prefix):
                return False
        for queue, count in registry.items():
            if count != self._layout.count(queue):
                for index in range(count):
                    while await self._drop(prefix_of(queue, index, count)):
                        pass
        for queue in queues:
            await self._redis.hset(QUEUES_KEY, queue, self._layout.count(queue))
        return True

    async def finish(self, fence: int) -> bool:
        """Marks everything as complete where every mark is still of this rebuild."""
        for prefix in (*self._prefixes(await self.queues()), SUITE_PREFIX):
            if not await self._do("finish", fence, prefix):
                return False
        return True

    async def _do(self, what: str, fence: int, prefix: str) -> bool:
        return bool((await self._mark(prefix, what, fence))[0])

    async def _registry(self) -> dict[QueueName, int]:
        found = cast("dict[bytes, bytes]", await self._redis.hgetall(QUEUES_KEY))
        return {QueueName(name.decode()): int(count) for name, count in found.items()}

    def _prefixes(self, queues: Iterable[QueueName]) -> Iterator[str]:
        for queue in sorted(queues):
            yield from self._layout.prefixes(queue)
