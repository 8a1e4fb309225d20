"""The grader against a scheduler that speaks the worker protocol over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import Item, TextSpec
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.free_text import VERSION as SEMANTIC_VERSION
from tests.support.grader_items import ITEMS, RULES, homework
from tests.support.grader_scheduler import MemoryScheduler, scheduler_running

LISTEN = "127.0.0.1:0"


@asynccontextmanager
async def grading(
    scheduler: MemoryScheduler, *, queues: tuple[str, ...] = RULES, credits: tuple[str, ...] = ()
) -> AsyncGenerator[None]:
    async with (
        scheduler_running(scheduler) as address,
        running(GraderConfig(scheduler_target=address, listen=LISTEN, queues=queues, credits=credits)),
    ):
        await scheduler.until(lambda: len(scheduler.streams) == 1, "the worker connects")
        yield
    assert scheduler.violations == []


async def test_grades_every_kind_of_item() -> None:
    scheduler = MemoryScheduler()
    async with grading(scheduler, queues=(*RULES, "free-text")):
        await scheduler.put(*(homework(queue, 1) for queue in ITEMS))
        await scheduler.until(lambda: len(scheduler.graded) == 4, "four grades", 60)
    for queue, item in ITEMS.items():
        grade = scheduler.graded[f"s1/{queue}"].grade
        assert grade.score == grade.max_score == item.points, queue
        assert sum(part.score for part in grade.criteria) == grade.score
        version = SEMANTIC_VERSION if queue == "free-text" else "1"
        assert {part.provenance.version for part in grade.criteria} == {version}
        assert grade.feedback
    assert scheduler.graded["s1/numeric"].grade.criteria[0].provenance.grader == "numeric"
    assert [part.criterion for part in scheduler.graded["s1/free-text"].grade.criteria] == [
        "density",
        "cause",
    ]
    assert scheduler.graded["s1/free-text"].grade.criteria[0].provenance.model


async def test_a_task_comes_back_until_the_scale_of_its_item_is_known() -> None:
    item = Item()
    item.CopyFrom(ITEMS["free-text"])
    item.item = "taught"
    for number in range(40):
        words = "Ice is less dense than liquid water" if number % 2 else "Water expands when it freezes"
        item.free_text.examples.add(answer=f"{words}, as number {number} says.", score=1 + number % 2)
    answer = Answer(item="taught", text="Because ice is less dense than the water that it floats on.")
    scheduler = MemoryScheduler()
    async with grading(scheduler, queues=("free-text",)):
        await scheduler.put(homework("free-text", 1, item=item, answer=answer))
        for times in (1, 2):
            await scheduler.until(
                lambda times=times: len(scheduler.results.get("s1/free-text", ())) == times, "handed back", 60
            )
            await scheduler.put(homework("free-text", 1 + times))  # whose item has a scale already
        await scheduler.until(lambda: len(scheduler.graded) == 3, "three grades", 60)
    ends = [outcome.WhichOneof("result") for outcome in scheduler.results["s1/free-text"]]
    assert ends == ["released", "released", "grade"]
    assert [len(scheduler.results[f"s{number}/free-text"]) for number in (2, 3)] == [1, 1]
    [first, _] = scheduler.graded["s1/free-text"].grade.criteria
    assert first.provenance.model.endswith("+calibrated-40")


async def test_many_tasks_are_graded_once_each_and_reported_in_batches() -> None:
    scheduler = MemoryScheduler(max_leases=100)
    tasks = [homework(queue, number) for number in range(2000) for queue in RULES]
    async with grading(scheduler):
        await scheduler.put(*tasks)
        await scheduler.until(lambda: len(scheduler.results) == len(tasks), "all graded", 60)
        assert all(not stream.held for stream in scheduler.streams)
    assert {len(outcomes) for outcomes in scheduler.results.values()} == {1}
    assert len(scheduler.graded) == len(tasks)
    assert len(scheduler.reports) < len(tasks) / 10


async def test_credits_stay_within_the_terms() -> None:
    scheduler = MemoryScheduler(max_credits=7)
    async with grading(scheduler, queues=("choice",)):
        await scheduler.put(*(homework("choice", number) for number in range(100)))
        await scheduler.until(lambda: len(scheduler.graded) == 100, "all graded")
        stream = scheduler.streams[0]
        await scheduler.until(lambda: stream.credits["choice"] == 7, "credits are granted again")


async def test_without_receipts_work_stops_at_a_bound() -> None:
    scheduler = MemoryScheduler(receipts=False)
    async with grading(scheduler, queues=("choice",), credits=("choice=8",)):
        await scheduler.put(*(homework("choice", number) for number in range(100)))
        await scheduler.until(lambda: len(scheduler.graded) == 32, "four times the credits")
        assert scheduler.streams[0].credits["choice"] == 0
        await scheduler.cut(scheduler.streams[0])
        scheduler.receipts = True
        await scheduler.until(lambda: len(scheduler.graded) == 100, "the next stream does the rest")


@pytest.mark.parametrize(
    ("queue", "answer", "item", "code", "words"),
    [
        ("choice", Answer(item="choice", text="two"), None, grpc.StatusCode.INVALID_ARGUMENT, "type"),
        ("numeric", Answer(item="numeric"), None, grpc.StatusCode.INVALID_ARGUMENT, "no answer"),
        ("choice", None, ITEMS["text"], grpc.StatusCode.INVALID_ARGUMENT, "queue"),
        (
            "text",
            None,
            Item(item="no-rule", points=1),
            grpc.StatusCode.FAILED_PRECONDITION,
            "how it is graded",
        ),
        (
            "text",
            None,
            Item(item="bad-rule", points=1, text=TextSpec(pattern="(")),
            grpc.StatusCode.FAILED_PRECONDITION,
            "regular expression",
        ),
        (
            "text",
            Answer(item="hangs", text="a" * 40 + "!"),
            Item(item="hangs", points=1, text=TextSpec(pattern="(a|a)*(a|a)*$")),
            grpc.StatusCode.UNKNOWN,
            "50 ms",
        ),
    ],
)
async def test_a_bad_task_fails_alone(
    queue: str, answer: Answer | None, item: Item | None, code: grpc.StatusCode, words: str
) -> None:
    scheduler = MemoryScheduler()
    async with grading(scheduler):
        await scheduler.put(
            homework(queue, 1), homework(queue, 2, answer=answer, item=item), homework(queue, 3)
        )
        await scheduler.until(lambda: len(scheduler.results) == 3, "three outcomes")
    bad = [outcomes[0] for task, outcomes in scheduler.results.items() if task.startswith("s2")]
    assert bad[0].failure.code == code.value[0]
    assert words in bad[0].failure.message
    assert len(scheduler.graded) == 2


async def test_an_item_that_was_never_sent_is_a_failure() -> None:
    scheduler = MemoryScheduler()
    async with grading(scheduler):
        lost = homework("text", 1)
        await scheduler.put(type(lost)(lost.task, lost.queue, "r9/gone", None, lost.answer))
        await scheduler.until(lambda: len(scheduler.results) == 1, "an outcome")
    assert scheduler.results["s1/text"][0].failure.code == grpc.StatusCode.INTERNAL.value[0]


async def test_a_lost_stream_is_opened_again_and_its_work_done_once_more() -> None:
    scheduler = MemoryScheduler(max_leases=50)
    async with grading(scheduler):
        for round_ in range(3):
            await scheduler.put(*(homework("text", 1000 * round_ + number) for number in range(500)))
            await scheduler.cut(scheduler.streams[0])
            await scheduler.until(lambda: len(scheduler.streams) == 1, "the worker is back")
        await scheduler.until(lambda: len(scheduler.graded) == 1500, "all graded")


async def test_a_scheduler_that_was_away_is_found_again() -> None:
    first, second = MemoryScheduler(), MemoryScheduler()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(scheduler_running(first))
        config = GraderConfig(scheduler_target=address, listen=LISTEN, queues=RULES)
        async with running(config) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service="scheduler"), timeout=30)

            async def until(status: int) -> None:
                async for response in watch:
                    if response.status == status:
                        return

            await until(health_pb2.HealthCheckResponse.SERVING)
            await stack.aclose()
            await until(health_pb2.HealthCheckResponse.NOT_SERVING)
            overall = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert overall.status == health_pb2.HealthCheckResponse.SERVING
            async with scheduler_running(second, int(address.rpartition(":")[2])):
                await until(health_pb2.HealthCheckResponse.SERVING)
                await second.put(homework("choice", 2))
                await second.until(lambda: len(second.graded) == 1, "graded")
            watch.cancel()


async def test_a_worker_that_hears_nothing_fails_its_health_and_recovers_when_it_hears_again() -> None:
    scheduler = MemoryScheduler(heartbeat_seconds=0.2)
    async with scheduler_running(scheduler) as address:
        config = GraderConfig(scheduler_target=address, listen=LISTEN, queues=RULES)
        async with running(config) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            services = ("", "scheduler")
            watches = {
                name: health.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)
                for name in services
            }

            async def until(status: int) -> None:
                for watch in watches.values():
                    async for response in watch:
                        if response.status == status:
                            break

            await until(health_pb2.HealthCheckResponse.SERVING)
            await scheduler.until(
                lambda: [] in scheduler.streams[0].heartbeats, "a heartbeat of an idle worker"
            )
            scheduler.pulses, scheduler.welcomes = False, False
            await until(health_pb2.HealthCheckResponse.NOT_SERVING)
            await scheduler.until(lambda: bool(scheduler.ended), "the worker gives the stream up")
            scheduler.pulses, scheduler.welcomes = True, True
            await until(health_pb2.HealthCheckResponse.SERVING)
            await scheduler.put(homework("choice", 1))
            await scheduler.until(lambda: len(scheduler.graded) == 1, "graded")
            for watch in watches.values():
                watch.cancel()


async def test_works_for_several_schedulers() -> None:
    first, second = MemoryScheduler(), MemoryScheduler()
    async with scheduler_running(first) as one, scheduler_running(second) as two:
        config = GraderConfig(scheduler_target=f"{one},{two}", listen=LISTEN, queues=RULES)
        async with running(config):
            for scheduler in (first, second):
                await scheduler.put(homework("text", 1))
                await scheduler.until(lambda scheduler=scheduler: len(scheduler.graded) == 1, "graded")
            assert first.streams[0].hello.worker != second.streams[0].hello.worker
