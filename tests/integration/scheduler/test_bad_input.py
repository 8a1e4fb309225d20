"""What bad workers and bad calls get from a real scheduler, while everyone else works on."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from tests.support.scheduler_process import Shared, Suite, queued
from tests.support.scheduler_worker import graded, worker

HELLO = pb.WorkRequest(hello=pb.Hello(worker="bad", queues=["free-text"])).SerializeToString()
DAY_SECONDS = 86_400


def details_of(error: object) -> tuple[grpc.StatusCode, str, str]:
    """(code, reason, the rule or the field)."""
    assert isinstance(error, grpc.aio.AioRpcError)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code(), info.reason, info.metadata.get("rule") or info.metadata.get("field", "")


def as_it_is(message: bytes) -> bytes:
    return message


async def to_the_end(stream: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


@asynccontextmanager
async def raw_stream(target: str) -> AsyncGenerator[grpc.aio.StreamStreamCall[bytes, bytes]]:
    """A work stream that sends any bytes."""
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel.stream_stream(
            "/cinnabar.scheduler.v1.WorkService/Work",
            request_serializer=as_it_is,
            response_deserializer=as_it_is,
        )()


async def test_pulses_tell_workers_how_their_queues_are(parts: Suite) -> None:
    scheduler = await parts.scheduler(lease_seconds="1")
    revision = parts.storage.add_revision()
    async with worker(scheduler.target) as one:
        await one.hello("free-text", "numeric")
        await scheduler.enqueue(parts.storage.add_tasks(7, revision=revision))
        await one.until(lambda: one.loads and one.loads["free-text"].ready == 7, "what waits")
        load = one.loads["free-text"]
        assert (load.leased, load.workers, load.HasField("predicted_work")) == (0, 1, False)
        assert one.loads["numeric"].ready == 0
        assert not one.loads["numeric"].HasField("oldest_age")
        await one.grade(await one.take(2))
        await one.take(1)
        await one.until(
            lambda: one.loads["free-text"].ready == 4 and one.loads["free-text"].leased == 1, "what waits now"
        )
        load = one.loads["free-text"]
        mean = (await scheduler.stats()).service_time.mean.ToNanoseconds() / 1e9
        assert load.predicted_work.ToNanoseconds() / 1e9 == pytest.approx(4 * mean, rel=0.05)
        assert load.oldest_age.ToNanoseconds() > 0
        paused = queue_pb.ControlQueueRequest(queue="free-text", state=queue_pb.PAUSED, actor="ops")
        await scheduler.queue.ControlQueue(paused, timeout=5)
        await one.until(lambda: one.loads["free-text"].ready == 0, "nothing can be had of a paused queue")


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([b"\xff\xff\xff\xff"], id="at once"),
        pytest.param([HELLO, b"\x0a\xff"], id="after the hello"),
        pytest.param([HELLO, b"GET / HTTP/1.1\r\n\r\n"], id="another protocol"),
    ],
)
async def test_garbage_ends_the_stream_that_brought_it(shared: Shared, messages: list[bytes]) -> None:
    async with worker(shared.scheduler.target, "good") as good:
        await good.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await good.take(1)
        async with raw_stream(shared.scheduler.target) as stream:
            for message in messages:
                await stream.write(message)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await to_the_end(stream)
        assert details_of(caught.value) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "WORKER_PROTOCOL_VIOLATION",
            "a message is a WorkRequest",
        )
        assert await good.grade([lease]) == [pb.Receipt.COMMITTED]
    assert '"level": "error"' not in shared.scheduler.log()


async def test_a_token_of_another_worker_changes_nothing(shared: Shared) -> None:
    async with worker(shared.scheduler.target, "good") as good, worker(shared.scheduler.target, "bad") as bad:
        await good.hello()
        await bad.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await good.take(1)
        assert await bad.report(graded(lease.lease_token)) == [pb.Receipt.STALE_LEASE]
        await bad.heartbeat([lease.lease_token])
        await bad.until(
            lambda: bad.cancelled == {lease.lease_token}, "it is told that it holds no such lease"
        )
        assert not shared.storage.graded
        assert await good.grade([lease]) == [pb.Receipt.COMMITTED]
        assert shared.storage.tasks[lease.task].worker == "good"
        assert not good.cancelled


async def test_a_second_report_is_stale_and_the_stream_lives(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(2, revision=shared.storage.add_revision()))
        first, second = await one.take(2)
        both = pb.WorkRequest(
            report=pb.Report(outcomes=[graded(first.lease_token), graded(first.lease_token)])
        )
        await one.send(both)
        await one.until(lambda: first.lease_token in one.receipts, "receipts")
        one.receipts.clear()
        assert await one.report(graded(first.lease_token)) == [pb.Receipt.STALE_LEASE]
        assert await one.grade([second]) == [pb.Receipt.COMMITTED]
        assert shared.storage.graded == {first.task, second.task}


async def test_silent_workers_get_nothing_until_they_speak(parts: Suite) -> None:
    scheduler = await parts.scheduler(lease_seconds="1")
    revision = parts.storage.add_revision()
    async with (
        worker(scheduler.target, "silent", beats=False) as silent,
        worker(scheduler.target, "other") as other,
    ):
        await other.hello("free-text", "numeric")
        await silent.hello("free-text", "numeric")
        await silent.ready(100)
        await silent.until(lambda: silent.pulses >= 4, "more than two heartbeat intervals")
        await other.ready(1)
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=revision))
        await other.until(lambda: other.leased, "the task")
        assert await other.grade(other.leased) == [pb.Receipt.COMMITTED]
        assert not silent.leased
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=revision))
        assert (await scheduler.stats()).credits == 100
        await silent.heartbeat([])
        await silent.until(lambda: silent.leased, "work, by credits of long ago")
        assert await silent.grade(silent.leased) == [pb.Receipt.COMMITTED]


@pytest.mark.parametrize(
    ("messages", "rule"),
    [([], "hello within 2 s"), ([HELLO], "say something every 2 seconds")],
    ids=["no hello", "nothing after it"],
)
async def test_a_worker_that_says_nothing_at_all_is_cut_off(
    parts: Suite, messages: list[bytes], rule: str
) -> None:
    scheduler = await parts.scheduler(lease_seconds="1", silence_limit_seconds="2")
    async with worker(scheduler.target, "good") as good, raw_stream(scheduler.target) as stream:
        await good.hello()
        for message in messages:
            await stream.write(message)
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await to_the_end(stream)
        assert 1.5 < time.monotonic() - began < 6
        assert details_of(caught.value)[1:] == ("WORKER_PROTOCOL_VIOLATION", rule)
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=parts.storage.add_revision()))
        assert await good.grade(await good.take(1)) == [pb.Receipt.COMMITTED]
        assert good.welcome is not None
        assert good.welcome.silence_limit.ToMilliseconds() == 2000
        assert good.welcome.heartbeat_interval.ToMilliseconds() == 333
    assert '"level": "error"' not in scheduler.log()


def not_before(task: queue_pb.QueuedTask, seconds: float) -> None:
    task.not_before.CopyFrom(Timestamp(seconds=int(seconds)))


def grade_by(task: queue_pb.QueuedTask, seconds: float) -> None:
    task.grade_by.CopyFrom(Timestamp(seconds=int(seconds)))


def both(task: queue_pb.QueuedTask, before: float, by: float) -> None:
    not_before(task, before)
    grade_by(task, by)


NOW = time.time()
BAD_TASKS: dict[str, tuple[str, Callable[[queue_pb.QueuedTask], None]]] = {
    "a negative time": ("not_before", lambda task: not_before(task, -1)),
    "no time at all": ("not_before", lambda task: task.not_before.CopyFrom(Timestamp(seconds=1, nanos=-1))),
    "far ahead": ("not_before", lambda task: not_before(task, NOW + 401 * DAY_SECONDS)),
    "a negative deadline": ("grade_by", lambda task: grade_by(task, -1)),
    "a far deadline": ("grade_by", lambda task: grade_by(task, NOW + 401 * DAY_SECONDS)),
    "late before it begins": ("grade_by", lambda task: both(task, NOW + 60, NOW + 59)),
    "a bad task": ("task", lambda task: setattr(task, "task", "x")),
    "no generation": ("generation", lambda task: setattr(task, "generation", 0)),
    "a bad queue": ("queue", lambda task: setattr(task, "queue", "Free Text")),
    "no tenant": ("tenant", lambda task: setattr(task, "tenant", "")),
}


@pytest.mark.parametrize(
    ("field", "spoil"), [pytest.param(*case, id=name) for name, case in BAD_TASKS.items()]
)
async def test_a_bad_task_is_refused_by_its_field_and_with_it_the_call(
    shared: Shared, field: str, spoil: Callable[[queue_pb.QueuedTask], None]
) -> None:
    good, bad = map(queued, shared.storage.add_tasks(2, revision=shared.storage.add_revision()))
    shared.storage.tasks.clear()  # nor will recovery queue them
    spoil(bad)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared.scheduler.queue.Enqueue(queue_pb.EnqueueRequest(tasks=[good, bad]), timeout=5)
    assert details_of(caught.value) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        f"tasks[1].{field}",
    )
    stats = await shared.scheduler.stats()
    assert (stats.ready, stats.delayed) == (0, 0)


async def test_a_duplicate_is_not_queued_twice(shared: Shared) -> None:
    (task,) = map(queued, shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
    request = queue_pb.EnqueueRequest(tasks=[task, task])
    assert (await shared.scheduler.queue.Enqueue(request, timeout=5)).enqueued == 1
    assert (await shared.other.queue.Enqueue(request, timeout=5)).enqueued == 0
    assert (await shared.scheduler.stats()).ready == 1


async def test_a_deadline_is_told_to_the_worker(shared: Shared) -> None:
    (task,) = map(queued, shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
    deadline = int(time.time()) + 3600
    grade_by(task, deadline)
    await shared.scheduler.queue.Enqueue(queue_pb.EnqueueRequest(tasks=[task]), timeout=5)
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        (lease,) = await one.take(1)
        assert lease.grade_by.ToSeconds() == deadline
        assert await one.grade([lease]) == [pb.Receipt.COMMITTED]
