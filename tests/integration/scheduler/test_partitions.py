"""Several partitions, and what happens to a part of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest_asyncio

from cinnabar_common.redis_connection import connect, connect_listener, subscribed
from cinnabar_scheduler.adapters.memory import MemoryPolicy
from cinnabar_scheduler.adapters.redis_queue import WAKE_CHANNEL, RedisQueue
from cinnabar_scheduler.policy import Policy, QueuePolicy, TenantPolicy
from cinnabar_scheduler.ports import QueueUnavailable
from cinnabar_scheduler.tasks import HeadStart, QueueName, QueueState, Why
from tests.support.scheduler_adapters import LEASE_SECONDS, Harness, leaked_keys, redis_harness
from tests.support.scheduler_queue import FREE, QUEUE, START_MS, ManualClock, held, task
from tests.support.valkey_cluster import ValkeyCluster
from tests.support.waiting import until

PARTITIONS = 4


def layout(partitions: int) -> Policy:
    """Every queue in so many partitions."""
    return Policy(default_queue=QueuePolicy(partitions=partitions))


@pytest_asyncio.fixture
async def parts(valkey_cluster_url: str, valkey_cluster: ValkeyCluster) -> AsyncGenerator[Harness]:
    """Four partitions, on a cluster."""
    async with redis_harness(valkey_cluster_url, layout(PARTITIONS), valkey_cluster.flush) as harness:
        yield harness


@asynccontextmanager
async def queue_of(url: str, policy: Policy) -> AsyncGenerator[RedisQueue]:
    redis = connect(url, timeout_seconds=2)
    try:
        yield RedisQueue(
            redis, clock=ManualClock(), lease_seconds=LEASE_SECONDS, policies=MemoryPolicy(policy)
        )
    finally:
        await redis.aclose()


async def rebuild(queue: RedisQueue, fence: int) -> None:
    assert await queue.begin_rebuild(fence)
    assert await queue.finish_rebuild(fence)
    assert await queue.has_epoch()


async def test_every_operation_finds_its_partition(parts: Harness) -> None:
    queue = parts.queue
    tasks = [task(f"p{n:03}", grade_by_ms=START_MS + 60_000) for n in range(200)]
    delayed = [task(f"d{n:03}", ready_ms=START_MS + 1_000) for n in range(40)]
    assert await queue.enqueue([*tasks, *delayed]) == [True] * 240
    assert await parts.other.enqueue(tasks) == [False] * 200
    assert await queue.missing([(QUEUE, one.task) for one in tasks] + [(QUEUE, "x/q1")]) == {"x/q1"}
    counts = await queue.counts(QUEUE, "t1")
    assert (counts.ready, counts.delayed, counts.tenant_ready, counts.tenants) == (200, 40, 200, 1)
    leased = [lease for _ in range(4) for lease in (await queue.lease(QUEUE, 50, free=FREE)).leases]
    assert {lease.task for lease in leased} == {one.task for one in tasks}
    assert await queue.extend(QUEUE, [*held(leased), *held(leased[:1])]) == []
    answers = await queue.give_back(QUEUE, held(leased[:100]), Why.RETURNED)
    assert len(answers) == 100
    assert await queue.extend(QUEUE, held(leased)) == [lease.token for lease in leased[:100]]
    parts.clock.advance(LEASE_SECONDS)
    assert len(await queue.expired(QUEUE, 1_000)) == 100
    again = (await queue.lease(QUEUE, 500, free=FREE)).leases
    assert len(again) == 140
    parts.clock.advance(60)
    assert len(await queue.overdue(QUEUE, 1_000)) == 200
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        page = await queue.known(QUEUE, cursor, 30)
        seen |= {one.task for one in page.tasks}
        if (cursor := page.cursor) is None:
            break
    assert seen == {one.task for one in (*tasks, *delayed)}
    removed, _ = await queue.remove(QUEUE, [(one.task, 1) for one in (*tasks, *delayed)])
    assert removed == 240


async def test_leasing_goes_round(parts: Harness) -> None:
    await parts.queue.enqueue([task(f"p{n:03}") for n in range(400)])
    prefixes = [0] * PARTITIONS
    redis = cast("Any", parts.queue)._redis
    for _ in range(8):
        await parts.queue.lease(QUEUE, 10, free=FREE)
    for index in range(PARTITIONS):
        prefixes[index] = await redis.zcard(f"cinnabar:{{{QUEUE}:{index}/{PARTITIONS}}}:leases")
    assert prefixes == [20] * PARTITIONS


async def test_caps_are_shared_out_over_partitions(parts: Harness) -> None:
    parts.policies.change(replace(layout(PARTITIONS), tenants={"t1": TenantPolicy(max_concurrency=6)}))
    await parts.apply()
    await parts.queue.enqueue([task(f"p{n:03}") for n in range(100)])
    assert len((await parts.queue.lease(QUEUE, 100, free=FREE)).leases) == 8  # 2 in each: 6 / 4, rounded up


async def test_the_last_credit_holds_over_partitions(parts: Harness) -> None:
    regrades = [task(f"p{n:03}", head_start=HeadStart.REGRADE) for n in range(100)]
    await parts.queue.enqueue(regrades)
    assert len((await parts.queue.lease(QUEUE, 50, free=50)).leases) == 49


async def test_the_loss_of_one_node_is_seen(parts: Harness, valkey_cluster: ValkeyCluster) -> None:
    queue = cast("RedisQueue", parts.queue)
    await rebuild(queue, 1)
    for index in range(PARTITIONS):
        number = await valkey_cluster.primary_of(f"cinnabar:{{{QUEUE}:{index}/{PARTITIONS}}}:epoch")
        client = valkey_cluster.node(number)
        await client.flushall()
        await client.aclose()
        await queue.enqueue([task()])
        assert not await queue.has_epoch()
        await rebuild(queue, index + 2)


async def test_a_loss_of_one_node_in_the_middle_of_a_rebuild_is_seen(
    parts: Harness, valkey_cluster: ValkeyCluster
) -> None:
    assert await parts.queue.begin_rebuild(1)
    number = await valkey_cluster.primary_of(f"cinnabar:{{{QUEUE}:2/{PARTITIONS}}}:epoch")
    client = valkey_cluster.node(number)
    await client.flushall()
    await client.aclose()
    assert not await parts.queue.finish_rebuild(1)


async def test_another_number_of_partitions_is_a_loss_and_leaves_nothing_behind(valkey_url: str) -> None:
    tasks = [task(f"p{n:03}", tenant=f"t{n % 30}") for n in range(300)]
    async with queue_of(valkey_url, layout(1)) as before, queue_of(valkey_url, layout(3)) as after:
        await rebuild(before, 1)
        await before.enqueue(tasks)
        assert not await after.has_epoch()
        assert await after.begin_rebuild(2)
        assert await after.enqueue(tasks) == [True] * 300
        assert await after.finish_rebuild(2)
        assert await after.has_epoch()
        assert not await before.has_epoch()
        redis = cast("Any", after)._redis
        assert [key async for key in redis.scan_iter(match="cinnabar:{*:0/1}:*", count=1000)] == []
    assert await leaked_keys(valkey_url) == []


async def test_a_server_restarted_with_old_data_is_not_believed(valkey_url: str) -> None:
    async with queue_of(valkey_url, layout(1)) as queue:
        await rebuild(queue, 1)
        redis = cast("Any", queue)._redis
        key = f"cinnabar:{{{QUEUE}:0/1}}:epoch"
        mark = (await redis.get(key)).decode()
        await redis.set(key, mark[:-1] + ("0" if mark[-1] != "0" else "1"))  # as another run wrote it
        assert not await queue.has_epoch()


async def test_scripts_heal_after_they_were_forgotten(parts: Harness, valkey_cluster: ValkeyCluster) -> None:
    await parts.queue.enqueue([task(f"p{n}") for n in range(20)])
    for number in await valkey_cluster.primaries():
        client = valkey_cluster.node(number)
        await client.script_flush()
        await client.aclose()
    assert len((await parts.queue.lease(QUEUE, 20, free=FREE)).leases) == 20


async def test_resuming_and_lifting_a_cap_wake_those_who_wait(
    parts: Harness, valkey_cluster: ValkeyCluster
) -> None:
    parts.policies.change(replace(layout(PARTITIONS), tenants={"t1": TenantPolicy(max_concurrency=1)}))
    await parts.apply()
    await parts.queue.enqueue([task(f"p{n:03}") for n in range(100)])
    await parts.queue.lease(QUEUE, 100, free=FREE)
    await parts.queue.control(QUEUE, QueueState.PAUSED)
    listener = connect_listener(valkey_cluster.url, timeout_seconds=2)
    woken: list[bytes] = []
    listening = asyncio.Event()

    async def listen() -> None:
        async for channel, data in subscribed(listener, WAKE_CHANNEL):
            if channel:
                woken.append(data)
            else:
                listening.set()

    task_ = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(5):
            await listening.wait()
        await parts.queue.control(QUEUE, QueueState.RUNNING)
        await until(lambda: len(woken) == 1, description="woken by the resumption")
        parts.policies.change(layout(PARTITIONS))
        await parts.apply()
        await until(lambda: len(woken) == 1 + PARTITIONS, description="woken by the lifted cap")
    finally:
        task_.cancel()
        await asyncio.wait([task_])
        await listener.aclose()
    assert set(woken) == {QUEUE.encode()}


async def test_a_primary_dies_and_its_replica_takes_over(valkey_cluster: ValkeyCluster) -> None:
    await valkey_cluster.until_whole()
    async with queue_of(valkey_cluster.url, layout(1)) as queue:
        await rebuild(queue, 1)
        tasks = [task(f"p{n:03}") for n in range(50)]
        await queue.enqueue(tasks)
        number = await valkey_cluster.primary_of(f"cinnabar:{{{QUEUE}:0/1}}:epoch")
        await valkey_cluster.processes.kill(f"valkey-{number}")
        try:

            async def served() -> bool:
                try:
                    return bool((await queue.counts(QUEUE)).ready)
                except QueueUnavailable:
                    return False

            await until(served, description="the replica serves", seconds=20)
            assert not await queue.has_epoch()  # it may lag: nothing is believed before a rebuild
            await rebuild(queue, 2)
            await queue.enqueue(tasks)
            leases = (await queue.lease(QUEUE, 100, free=FREE)).leases
            assert {lease.task for lease in leases} == {one.task for one in tasks}
        finally:
            await valkey_cluster.processes.start(f"valkey-{number}")
            await valkey_cluster.until_whole()
            await valkey_cluster.flush()


async def test_queues_have_partitions_of_their_own(valkey_url: str) -> None:
    policy = Policy(queues={"essay": QueuePolicy(partitions=3)})
    essay = QueueName("essay")
    async with queue_of(valkey_url, policy) as queue:
        await rebuild(queue, 1)
        await queue.enqueue([task(f"p{n}", queue=essay) for n in range(30)] + [task("one")])
        assert await queue.has_epoch()
        assert (await queue.counts(essay)).ready == 30
        assert (await queue.counts(QUEUE)).ready == 1
