"""The queue alone, one partition and one process: dispatches a second, their cost, its memory."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from cinnabar_common.clock import SystemClock
from cinnabar_common.redis_connection import connect
from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import Valkey
from cinnabar_scheduler.adapters.memory import MemoryPolicy
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.tasks import HeadStart, QueueName, Task

BATCH = 512  # the most that a scheduler leases at once
FREE = 4096
BATCHES_UNDER_LEASE = 4
ANSWER = bytes(200)
TENANTS = 1_000
NAMES = ("dispatch_per_second", "dispatch_cost_ratio_1k_to_1m", "redis_bytes_per_waiting_task")
_numbers = itertools.count()


def _tasks(queue: QueueName, count: int, tenants: int) -> list[Task]:
    now_ms = int(time.time() * 1000)
    return [
        Task(
            task=f"01jd000000{next(_numbers):016d}-1f3/q1",
            tenant=f"tenant-{number % tenants:04d}",
            queue=queue,
            generation=1,
            head_start=HeadStart.NORMAL,
            ready_ms=now_ms,
            item_key="01jd0000000000000000000000-0aa/q1",
            answer=ANSWER,
        )
        for number in range(count)
    ]


class Bench:
    """A Valkey of its own."""

    def __init__(self, redis: Any, queue: RedisQueue) -> None:
        self._redis = redis
        self._queue = queue

    async def fill(self, queue: QueueName, count: int, tenants: int) -> None:
        """Enqueues so many tasks."""
        for start in range(0, count, 10_000):
            await self._queue.enqueue(_tasks(queue, min(10_000, count - start), tenants))

    async def dispatch(self, queue: QueueName, count: int) -> float:
        """Seconds for leasing and removing ``count`` tasks in batches."""
        started = time.perf_counter()
        done = 0
        while done < count:
            leased = await self._queue.lease(queue, min(BATCH, count - done), free=FREE)
            if not leased.leases:
                raise RuntimeError(f"only {done} of {count} were there")
            removed, _ = await self._queue.remove(
                queue, [(lease.task, lease.generation) for lease in leased.leases]
            )
            done += removed
        return time.perf_counter() - started

    async def dispatch_and_complete(self, queue: QueueName, count: int) -> float:
        """The same as a scheduler does it: the next batch is leased while the last one is completed."""
        completed: asyncio.Queue[list[tuple[str, int]]] = asyncio.Queue(BATCHES_UNDER_LEASE)

        async def complete() -> None:
            done = 0
            while done < count:
                removed, _ = await self._queue.remove(queue, await completed.get())
                done += removed

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(complete(), name="complete")
            taken = 0
            while taken < count:
                leased = await self._queue.lease(queue, min(BATCH, count - taken), free=FREE)
                if not leased.leases:
                    raise RuntimeError(f"only {taken} of {count} were there")
                taken += len(leased.leases)
                await completed.put([(lease.task, lease.generation) for lease in leased.leases])
        return time.perf_counter() - started

    async def per_second(self, tenants: int, count: int) -> float:
        """Dispatches a second with so many tenants, with as much again left behind."""
        queue = QueueName(f"rate-{tenants}")
        await self.fill(queue, 2 * count, tenants)
        rate = count / await self.dispatch_and_complete(queue, count)
        await self.dispatch(queue, count)
        return rate

    async def cost_ratio(self, large: int, rounds: int) -> float:
        """Cost of a dispatch with ``large`` waiting over that with 1,000; medians, in turn."""
        few, many = QueueName("few"), QueueName("many")
        await self.fill(few, 1_000, 1)
        await self.fill(many, large, 1)
        costs: dict[QueueName, list[float]] = {few: [], many: []}
        for number in range(rounds):
            for queue in (few, many) if number % 2 else (many, few):
                # What is taken is put back first: the number that waits stays the same.
                await self.fill(queue, BATCH, 1)
                costs[queue].append(await self.dispatch(queue, BATCH))
        return statistics.median(costs[many]) / statistics.median(costs[few])

    async def bytes_per_task(self, count: int) -> float:
        """Memory of the server per waiting task, without its answer."""
        queue = QueueName("memory")
        await self.fill(queue, 1_000, TENANTS)
        before = await self._used()
        await self.fill(queue, count, TENANTS)
        return (await self._used() - before) / count - len(ANSWER)

    async def _used(self) -> int:
        return int((await self._redis.info("memory"))["used_memory"])


@asynccontextmanager
async def _running(folder: Path) -> AsyncGenerator[Bench]:
    valkey = Valkey(
        name="valkey",
        folder=folder / "valkey",
        port=Ports().of("valkey"),
        password=Credentials().redis,
        max_memory="4gb",
    )
    async with serving(valkey.process(), logs=folder / "logs"):
        redis = connect(valkey.url, timeout_seconds=30)
        try:
            queue = RedisQueue(redis, clock=SystemClock(), lease_seconds=60, policies=MemoryPolicy())
            await queue.begin_rebuild(1)
            await queue.finish_rebuild(1)
            yield Bench(cast("Any", redis), queue)
        finally:
            await redis.aclose()


async def measure(folder: Path, wanted: set[str], rounds: int, scale: float) -> dict[str, Sequence[float]]:
    """Samples of the ``wanted`` names."""
    samples: dict[str, Sequence[float]] = {}
    async with _running(folder) as bench:
        if "dispatch_per_second" in wanted:
            count = max(BATCH, int(20_000 * scale))
            await bench.per_second(1, count)  # warm up
            one = [await bench.per_second(1, count) for _ in range(rounds)]
            many = [await bench.per_second(TENANTS, count) for _ in range(rounds)]
            print(f"  one tenant {statistics.median(one):,.0f}/s, {TENANTS} {statistics.median(many):,.0f}/s")
            samples["dispatch_per_second"] = min(one, many, key=statistics.median)
        if "redis_bytes_per_waiting_task" in wanted:
            samples["redis_bytes_per_waiting_task"] = [await bench.bytes_per_task(int(100_000 * scale))]
        if "dispatch_cost_ratio_1k_to_1m" in wanted:
            large = max(10_000, int(1_000_000 * scale))
            ratio = await bench.cost_ratio(large, max(10, int(100 * scale)))
            samples["dispatch_cost_ratio_1k_to_1m"] = [ratio]
    return samples
