"""The queue's adapters behind one face, for suites that run over all of them."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from cinnabar_scheduler.adapters.memory import MemoryQueue
from cinnabar_scheduler.adapters.redis_connection import connect
from cinnabar_scheduler.adapters.redis_queue import PERMANENT_KEY_PATTERN, RedisQueue
from cinnabar_scheduler.ports import Queue
from cinnabar_scheduler.tasks import RetryPolicy
from tests.support.scheduler_queue import ManualClock

LEASE_SECONDS = 10.0
POLICY = RetryPolicy(backoff_base_ms=1_000, backoff_cap_ms=3_000, max_failures=4, max_faults=3)


@dataclass(frozen=True, slots=True)
class Harness:
    """A queue, its clock, a second process on the same store, and the loss of all data."""

    queue: Queue
    other: Queue
    clock: ManualClock
    flush: Callable[[], Awaitable[None]]


def memory_harness() -> Harness:
    """In memory."""
    clock = ManualClock()
    queue = MemoryQueue(clock=clock, lease_seconds=LEASE_SECONDS, policy=POLICY, owner="one")

    async def flush() -> None:
        queue.flush()

    return Harness(queue, queue.other("two"), clock, flush)


@asynccontextmanager
async def redis_harness(url: str) -> AsyncGenerator[Harness]:
    """On a real server; on the way out every key must be known to live for ever, or have a TTL."""
    clock = ManualClock()
    redis = connect(url, timeout_seconds=5)

    def queue(owner: str) -> RedisQueue:
        return RedisQueue(redis, clock=clock, lease_seconds=LEASE_SECONDS, policy=POLICY, owner=owner)

    async def flush() -> None:
        await cast("Any", redis).flushdb()

    try:
        yield Harness(queue("one"), queue("two"), clock, flush)
        assert await leaked_keys(url) == []
    finally:
        await redis.aclose()


async def leaked_keys(url: str) -> list[str]:
    """Keys that are neither permanent nor mortal."""
    redis = cast("Any", connect(url, timeout_seconds=5))
    try:
        return [
            key.decode()
            async for key in redis.scan_iter(count=1000)
            if not re.fullmatch(PERMANENT_KEY_PATTERN, key.decode()) and await redis.ttl(key) == -1
        ]
    finally:
        await redis.aclose()
