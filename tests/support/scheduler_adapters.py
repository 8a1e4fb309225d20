"""The queue's adapters behind one face, for suites that run over all of them."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory import MemoryPolicy, MemoryQueue
from cinnabar_scheduler.adapters.memory_progress import MemoryProgress
from cinnabar_scheduler.adapters.redis_epoch import PERMANENT_KEY_PATTERN
from cinnabar_scheduler.adapters.redis_progress import RedisProgress
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.policy import Policy, QueuePolicy, RetryRule
from cinnabar_scheduler.ports import ProgressBoard, Queue
from tests.support.scheduler_queue import ManualClock

LEASE_SECONDS = 10.0
RETRIES = QueuePolicy(max_faults=3, failed=RetryRule(4, 1.0, 3.0), unavailable=RetryRule(5, 2.0, 8.0))
POLICY = Policy(default_queue=RETRIES)


@dataclass(frozen=True, slots=True)
class Harness:
    """A queue, its clock, a second process on the same store, its policy, the loss of all data.

    ``apply`` waits until a change of the policy is in force.
    """

    queue: Queue
    other: Queue
    clock: ManualClock
    policies: MemoryPolicy
    flush: Callable[[], Awaitable[None]]
    apply: Callable[[], Awaitable[None]]
    progress: ProgressBoard


def memory_harness() -> Harness:
    """In memory."""
    clock, policies = ManualClock(), MemoryPolicy(POLICY)
    queue = MemoryQueue(clock=clock, lease_seconds=LEASE_SECONDS, policies=policies)

    async def flush() -> None:
        queue.flush()

    async def applied() -> None:
        """Nothing to wait for."""

    return Harness(queue, queue.other(), clock, policies, flush, applied, MemoryProgress(queue))


@asynccontextmanager
async def redis_harness(
    url: str, policy: Policy = POLICY, empty: Callable[[], Awaitable[None]] | None = None
) -> AsyncGenerator[Harness]:
    """On a real server or cluster; on the way out every key must be known to live for ever, or have a TTL."""
    clock, policies = ManualClock(), MemoryPolicy(policy)
    redis = connect(url, timeout_seconds=5)

    def queue() -> RedisQueue:
        return RedisQueue(redis, clock=clock, lease_seconds=LEASE_SECONDS, policies=policies)

    async def flushdb() -> None:
        await cast("Any", redis).flushdb()

    try:
        one = queue()
        yield Harness(
            one, queue(), clock, policies, empty or flushdb, one.apply_policies, RedisProgress(redis, policy)
        )
        assert await leaked_keys(url) == []
    finally:
        await redis.aclose()


async def leaked_keys(url: str) -> list[str]:
    """Keys that are neither permanent nor mortal."""
    redis = cast("Any", connect(url, timeout_seconds=5))
    try:
        return [
            key.decode()
            async for key in redis.scan_iter(
                count=1000, **({"target_nodes": "primaries"} if "cluster" in url else {})
            )
            if not re.fullmatch(PERMANENT_KEY_PATTERN, key.decode()) and await redis.ttl(key) == -1
        ]
    finally:
        await redis.aclose()
