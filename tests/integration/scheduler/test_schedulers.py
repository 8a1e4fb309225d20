"""Several schedulers, and what happens when one of them, Valkey or storage goes away."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc
import pytest

from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common.redis_connection import connect
from tests.support.scheduler_process import SchedulerProcess, Shared, Suite
from tests.support.scheduler_worker import GRADE, worker
from tests.support.servers import ValkeyServer
from tests.support.waiting import until


@asynccontextmanager
async def following(
    scheduler: SchedulerProcess, *submissions: str, told_by: SchedulerProcess | None = None
) -> AsyncGenerator[AsyncIterator[set[str]]]:
    """The ids of submissions that changed, as ``scheduler`` tells them.

    Nothing says when what was added is followed, so a change of a submission that nobody has is made, on
    ``told_by``, until it comes back.
    """
    probe = f"probe-{uuid4().hex}"
    cancel = queue_pb.CancelRequest(tasks=[queue_pb.CancelRequest.Task(task=f"{probe}/q", queue="free-text")])
    call = scheduler.queue.Follow()
    told: asyncio.Queue[set[str] | grpc.aio.AioRpcError] = asyncio.Queue()

    async def read() -> None:
        try:
            async for response in call:
                told.put_nowait(set(response.submission_ids))
        except grpc.aio.AioRpcError as error:
            told.put_nowait(error)

    async def followed() -> bool:
        await (told_by or scheduler).queue.Cancel(cancel, timeout=5)
        return any(told.get_nowait() == {probe} for _ in range(told.qsize()))

    async def changes() -> AsyncIterator[set[str]]:
        while True:
            changed = await asyncio.wait_for(told.get(), 20)
            if isinstance(changed, grpc.aio.AioRpcError):
                raise changed
            if changed := changed - {probe}:
                yield changed

    reader = asyncio.create_task(read(), name="follow-reader")
    try:
        await call.write(queue_pb.FollowRequest(add=[*submissions, probe]))
        await until(followed, description="changes are told")
        yield changes()
    finally:
        call.cancel()
        reader.cancel()
        await asyncio.wait([reader])


async def test_two_schedulers_share_work_and_wake_each_other(shared: Shared) -> None:
    one, two = shared.scheduler, shared.other
    revision = shared.storage.add_revision()
    async with worker(one.target, "a") as a, worker(two.target, "b") as b:
        await a.hello()
        await b.hello()
        await b.ready(20)
        delays: list[float] = []
        for count in range(1, 8):
            (task,) = shared.storage.add_tasks(1, revision=revision)
            began = time.monotonic()
            await one.enqueue([task])
            await b.until(lambda count=count: len(b.leased) == count, "a task enqueued on the other")
            delays.append(time.monotonic() - began)
        # Without the wake-up it would be the idle poll of a second.
        assert sorted(delays)[len(delays) // 2] < 0.25
        assert await b.grade(b.leased) == [pb.Receipt.COMMITTED] * 7
        await a.ready(50)
        await b.ready(37)
        await two.enqueue(shared.storage.add_tasks(100, revision=revision))
        await until(lambda: len(a.leased) + len(b.leased) == 107, "all tasks leased once")
        assert {lease.task for lease in [*a.leased, *b.leased]} == set(shared.storage.tasks)


async def test_cancel_reaches_the_worker_of_another_scheduler(shared: Shared) -> None:
    one, two = shared.scheduler, shared.other
    async with worker(two.target) as held:
        await held.hello()
        tasks = shared.storage.add_tasks(3, revision=shared.storage.add_revision())
        await two.enqueue(tasks)
        (lease,) = await held.take(1)
        async with following(two, tasks[1].submission_id, told_by=one) as changes:
            response = await one.queue.Cancel(
                queue_pb.CancelRequest(
                    tasks=[
                        queue_pb.CancelRequest.Task(
                            task=f"{task.submission_id}/{task.item_id}", queue="free-text"
                        )
                        for task in tasks
                    ]
                ),
                timeout=5,
            )
            assert response.cancelled == 3
            await held.until(lambda: held.cancelled == {lease.lease_token}, "a cancellation")
            assert await anext(changes) == {tasks[1].submission_id}
        assert await held.grade([lease]) == [pb.Receipt.STALE_LEASE]
        await held.ready(5)
        assert (await one.stats()).ready == 0


async def test_follow_tells_changes_of_all_schedulers(shared: Shared) -> None:
    one, two = shared.scheduler, shared.other
    tasks = shared.storage.add_tasks(3, revision=shared.storage.add_revision())
    ids = [task.submission_id for task in tasks]
    await one.enqueue(tasks)
    async with (
        worker(one.target) as held,
        following(one, ids[0], ids[1]) as here,
        following(two, ids[1], ids[2], told_by=one) as there,
    ):
        await held.hello()
        assert await held.grade(await held.take(3)) == [pb.Receipt.COMMITTED] * 3
        assert await anext(here) == {ids[0], ids[1]}
        assert await anext(there) == {ids[1], ids[2]}


async def test_a_lost_queue_is_rebuilt_from_storage(shared: Shared) -> None:
    scheduler = shared.scheduler
    shared.storage.add_tasks(20, revision=shared.storage.add_revision())
    shared.storage.add_tasks(30, revision=shared.storage.add_revision(), bucket=1000)
    await scheduler.enqueue([task.open for task in shared.storage.tasks.values()])
    async with worker(scheduler.target) as one:
        await one.hello()
        before = await one.take(10)
        fence = max(int(lease.lease_token.partition("-")[0]) for lease in before)
        redis = connect(shared.redis_url, timeout_seconds=5)
        await redis.flushdb()  # pyright: ignore[reportUnknownMemberType]
        await redis.aclose()
        await one.grade(before)
        await one.ready(100)
        await one.until(
            lambda: shared.storage.graded | {lease.task for lease in one.leased} >= set(shared.storage.tasks),
            "all tasks",
            seconds=10,
        )
        later = [lease for lease in one.leased if lease not in before]
        assert min(int(lease.lease_token.partition("-")[0]) for lease in later) > fence
        receipts = await one.grade(later)
        assert receipts.count(pb.Receipt.COMMITTED) == 40
        assert set(receipts) <= {pb.Receipt.COMMITTED, pb.Receipt.ALREADY_GRADED}
    assert shared.storage.open_count == 0


async def test_what_was_never_enqueued_is_swept_up(parts: Suite) -> None:
    scheduler = await parts.scheduler(sweep_seconds="0.2")
    parts.storage.add_tasks(5, revision=parts.storage.add_revision())
    async with worker(scheduler.target) as one:
        await one.hello()
        assert await one.grade(await one.take(5)) == [pb.Receipt.COMMITTED] * 5


async def test_a_killed_scheduler_leaves_its_leases_to_the_others(parts: Suite) -> None:
    one, two = await parts.scheduler(lease_seconds="1"), await parts.scheduler(lease_seconds="1")
    await one.enqueue(parts.storage.add_tasks(5, revision=parts.storage.add_revision()))
    async with worker(one.target, "a") as a, worker(two.target, "b") as b:
        await a.hello()
        await b.hello()
        await a.take(2)
        await one.process.kill()
        await a.end()
        assert await b.grade(await b.take(3)) == [pb.Receipt.COMMITTED] * 3
        assert await b.grade(await b.take(2)) == [pb.Receipt.COMMITTED] * 2  # those of the dead scheduler
        await one.process.start()
        assert (await one.stats()).ready == 0


async def test_a_leaving_scheduler_ends_its_streams_and_costs_no_attempt(parts: Suite) -> None:
    one, two = await parts.scheduler(), await parts.scheduler()
    await one.enqueue(parts.storage.add_tasks(2, revision=parts.storage.add_revision()))
    async with worker(one.target, "a") as a, worker(two.target, "b") as b, following(one) as changes:
        await a.hello()
        await b.hello()
        await a.take(2)
        await b.ready(2)
        began = time.monotonic()
        await one.process.stop()
        ended = await a.end()
        assert isinstance(ended, grpc.aio.AioRpcError)
        assert ended.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await anext(changes)
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        await b.until(lambda: len(b.leased) == 2, "the tasks of the leaving scheduler")
        assert time.monotonic() - began < 4
        assert [lease.attempt for lease in b.leased] == [1, 1]
        assert await one.process.wait() == 0
    assert '"level": "error"' not in one.log()


async def test_storage_away_then_back(shared: Shared) -> None:
    scheduler = shared.scheduler
    revision = shared.storage.add_revision()
    await scheduler.enqueue(shared.storage.add_tasks(2, revision=revision))
    async with worker(scheduler.target) as one:
        await one.hello()
        leases = await one.take(2)
        shared.storage.outage = True
        await one.send(
            pb.WorkRequest(
                report=pb.Report(
                    outcomes=[pb.Outcome(lease_token=lease.lease_token, grade=GRADE) for lease in leases]
                )
            )
        )
        await until(lambda: "storage is away" in scheduler.log(), "an attempt to commit")
        assert not one.receipts
        shared.storage.outage = False
        await one.until(lambda: len(one.receipts) == 2, "receipts")
        assert set(one.receipts.values()) == {pb.Receipt.COMMITTED}


async def test_a_lost_shard_holds_up_no_other(shared: Shared) -> None:
    scheduler = shared.scheduler
    revision = shared.storage.add_revision()
    shared.storage.lost_shards = {1}
    lost = shared.storage.add_tasks(4, revision=revision, bucket=1000)
    await scheduler.enqueue(lost)
    async with worker(scheduler.target, "a") as a, worker(scheduler.target, "b") as b:
        await a.hello()
        await b.hello()
        leases = await a.take(4)
        for lease in leases:
            await a.send(
                pb.WorkRequest(
                    report=pb.Report(outcomes=[pb.Outcome(lease_token=lease.lease_token, grade=GRADE)])
                )
            )
        await until(lambda: len(shared.storage.commits) >= 2, "attempts to commit")
        await scheduler.enqueue(shared.storage.add_tasks(3, revision=revision))
        began = time.monotonic()
        assert await b.grade(await b.take(3)) == [pb.Receipt.COMMITTED] * 3
        assert time.monotonic() - began < 2
        assert not a.receipts
        shared.storage.lost_shards = set()
        await a.until(lambda: len(a.receipts) == 4, "receipts")
        assert set(a.receipts.values()) == {pb.Receipt.COMMITTED}


async def test_unreachable_items_hold_up_nobody_and_do_not_spin(shared: Shared) -> None:
    scheduler = shared.scheduler
    known = shared.storage.add_revision()
    await scheduler.enqueue(shared.storage.add_tasks(1, revision=known))
    async with worker(scheduler.target) as one:
        await one.hello()
        await one.grade(await one.take(1))
        refusals, shared.storage.outage = shared.storage.refusals, True
        unknown = shared.storage.add_tasks(1, revision=shared.storage.add_revision())
        await scheduler.enqueue(unknown)
        await scheduler.enqueue(shared.storage.add_tasks(3, revision=known))
        await one.ready(10)
        await one.until(lambda: len(one.leased) == 4, "tasks whose item is in memory")
        shared.storage.outage = False
        await one.until(lambda: len(one.leased) == 5, "the task whose item was not")
        assert 0 < shared.storage.refusals - refusals < 50
        assert one.leased[4].attempt == 1


async def test_valkey_killed_and_back(shared: Shared, valkey_server: ValkeyServer) -> None:
    scheduler = shared.scheduler
    revision = shared.storage.add_revision()
    shared.storage.add_tasks(3, revision=revision)
    await scheduler.enqueue([task.open for task in shared.storage.tasks.values()])
    async with worker(scheduler.target) as one:
        await one.hello()
        leases = await one.take(2)
        await valkey_server.processes.kill("valkey")
        assert await one.grade(leases) == [pb.Receipt.COMMITTED] * 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await scheduler.enqueue(shared.storage.add_tasks(1, revision=revision))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await valkey_server.processes.start("valkey")
        await one.ready(10)
        await one.until(
            lambda: {lease.task for lease in one.leased} == set(shared.storage.tasks), "all tasks", seconds=15
        )
        await one.grade(one.leased[2:])
        await until(lambda: shared.storage.open_count == 0, "all graded")
        await one.heartbeat(["1-x"])
        await one.until(lambda: "1-x" in one.cancelled, "the stream lives")
    assert '"level": "error"' not in scheduler.log()


async def test_valkey_paused_and_resumed(parts: Suite, valkey_server: ValkeyServer) -> None:
    scheduler = await parts.scheduler(redis_timeout_seconds="0.5")
    revision = parts.storage.add_revision()
    async with worker(scheduler.target) as one:
        await one.hello()
        await one.ready(2)
        (task,) = parts.storage.add_tasks(1, revision=revision)
        valkey_server.processes["valkey"].pause()
        try:
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await scheduler.enqueue([task])
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 3
        finally:
            valkey_server.processes["valkey"].resume()
        await scheduler.enqueue([task])
        await one.until(lambda: one.leased, "the task", seconds=5)
        assert await one.grade(one.leased[:1]) == [pb.Receipt.COMMITTED]


async def test_nobody_follows_without_bound(shared: Shared) -> None:
    call = shared.scheduler.queue.Follow()
    await call.read()
    await call.write(queue_pb.FollowRequest(add=[f"s{number}" for number in range(100_001)]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
