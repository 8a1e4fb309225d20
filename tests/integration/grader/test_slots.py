"""Graders that wait, against a scheduler that speaks the worker protocol over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.kinds import KINDS
from tests.support.grader_items import homework
from tests.support.grader_kinds import QUEUE, HeldTasks, held
from tests.support.grader_scheduler import MemoryScheduler, Stream, scheduler_running
from tests.support.waiting import until


@asynccontextmanager
async def grading(
    scheduler: MemoryScheduler, grader: HeldTasks, *, drain_seconds: float = 10.0
) -> AsyncGenerator[Stream]:
    async with scheduler_running(scheduler) as address:
        config = GraderConfig(
            scheduler_target=address,
            listen="127.0.0.1:0",
            queues=("text", QUEUE, "custom-absent"),
            min_workers=4,
            max_workers=4,
            drain_seconds=drain_seconds,
        )
        async with running(config, [*KINDS, grader.kind()]):
            await scheduler.until(lambda: len(scheduler.streams) == 1, "the worker connects")
            yield scheduler.streams[0]
        await scheduler.until(lambda: not scheduler.streams, "the stream ended")
    assert scheduler.violations == []


async def test_announces_what_opened_and_works_on_as_many_as_there_are_slots() -> None:
    scheduler, grader = MemoryScheduler(), HeldTasks()
    async with grading(scheduler, grader) as stream:
        assert list(stream.hello.queues) == ["text", QUEUE]
        await scheduler.put(*(held(number) for number in range(10)), homework("text", 1))
        await scheduler.until(lambda: len(scheduler.graded) == 1, "rules do not wait for slots")
        await until(lambda: len(grader.running) == 4, "all slots are used")
        grader.go(20)
        await scheduler.until(lambda: len(scheduler.graded) == 11, "all graded")
    assert grader.most == 4
    assert [test.test for test in scheduler.graded["s3/held"].grade.tests] == ["t0", "t1"]


async def test_tells_how_far_a_task_is() -> None:
    scheduler, grader = MemoryScheduler(), HeldTasks()
    async with grading(scheduler, grader) as stream:
        await scheduler.put(held(1))
        grader.go(1)
        await scheduler.until(lambda: bool(scheduler.progress), "the first test is known")
        (first,) = scheduler.progress
        assert first.lease_token in stream.held
        assert [(test.test, test.verdict) for test in first.tests] == [("t0", 1)]
        grader.go(1)
        await scheduler.until(lambda: len(scheduler.graded) == 1, "graded")


async def test_a_cancelled_task_is_stopped() -> None:
    scheduler, grader = MemoryScheduler(), HeldTasks()
    async with grading(scheduler, grader) as stream:
        await scheduler.put(held(1))
        await until(lambda: len(grader.running) == 1, "it runs")
        await scheduler.cancel(stream, list(stream.held))
        await until(lambda: not grader.running, "it is stopped")
        grader.go(2)
        await scheduler.put(held(2))
        await scheduler.until(lambda: "s2/held" in scheduler.results, "the next one is graded")
    assert list(scheduler.results) == ["s2/held"]


async def test_what_does_not_finish_in_time_is_handed_back() -> None:
    scheduler, grader = MemoryScheduler(), HeldTasks()
    async with grading(scheduler, grader, drain_seconds=0.05) as stream:
        await scheduler.put(*(held(number) for number in range(6)))
        await until(lambda: len(grader.running) == 4, "all slots are used")
    assert stream.half_closed
    assert not grader.running
    assert {outcome.WhichOneof("result") for (outcome,) in scheduler.results.values()} == {"released"}
    assert sorted(task.task for task in scheduler.waiting[QUEUE]) == [
        f"s{number}/held" for number in range(6)
    ]


async def test_a_kind_brings_its_own_checks() -> None:
    sandbox = ConnectionError("none that is strong enough")

    async def check() -> None:
        raise sandbox

    scheduler, grader = MemoryScheduler(), HeldTasks({"sandbox": check})
    async with scheduler_running(scheduler) as address:
        config = GraderConfig(scheduler_target=address, listen="127.0.0.1:0", queues=(QUEUE,))
        async with (
            running(config, [grader.kind()]) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            response = await health.Check(health_pb2.HealthCheckRequest(service="sandbox"), timeout=5)
            assert response.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_process_that_can_serve_nothing_does_not_start() -> None:
    config = GraderConfig(scheduler_target="127.0.0.1:9", listen="127.0.0.1:0", queues=("custom-absent",))
    with pytest.raises(RuntimeError, match="none of the queues"):
        async with running(config, [HeldTasks().kind()]):
            raise AssertionError("it started")
