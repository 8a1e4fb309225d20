"""Leases over a real stream, with a grader that works exactly as long as the test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import pytest

from cinnabar_grader.adapters import scheduler_stream
from cinnabar_grader.adapters.scheduler_stream import SchedulerStream, StreamSettings
from cinnabar_grader.convert import CompiledItems
from cinnabar_grader.graders import Outcome, Task
from cinnabar_grader.pipeline import Lane
from cinnabar_grader.rules.text import text_grader
from tests.support.grader_items import homework
from tests.support.grader_scheduler import MemoryScheduler, Stream, scheduler_running


class HeldGrader:
    """Grades texts in batches of two, each batch when the test lets it."""

    name = "held"
    version = "1"
    queue = "text"
    batch_limit = 2

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self._grader = text_grader()

    def blocking(self, batch: Sequence[Task]) -> bool:
        return True

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        self.started.release()
        assert self.go.acquire(timeout=30)
        return self._grader.grade(batch)


class Bench:
    """A scheduler, a stream to it, and a grader that waits for the test."""

    def __init__(self, scheduler: MemoryScheduler, stream: SchedulerStream, grader: HeldGrader) -> None:
        self.scheduler = scheduler
        self.stream = stream
        self.grader = grader

    @property
    def connection(self) -> Stream:
        return self.scheduler.streams[0]

    async def begin(self, tasks: int) -> None:
        """Puts tasks and waits until the first batch is being graded."""
        await self.scheduler.put(*(homework("text", number) for number in range(tasks)))
        assert await asyncio.to_thread(self.grader.started.acquire, timeout=20)


@asynccontextmanager
async def bench(
    scheduler: MemoryScheduler, *, credits: int = 8, items_bytes: int = 1 << 20
) -> AsyncGenerator[Bench]:
    grader = HeldGrader()
    with ThreadPoolExecutor(1) as executor:
        async with scheduler_running(scheduler) as address, asyncio.TaskGroup() as group:
            stream = SchedulerStream(
                address,
                worker="w1",
                settings=StreamSettings(
                    version="1",
                    credits={"text": credits},
                    compiled=CompiledItems(),
                    items_bytes=items_bytes,
                ),
            )
            stream.serve("text", partial(Lane, grader, executor=executor))
            group.create_task(stream.run())
            await scheduler.until(lambda: bool(scheduler.streams), "the worker connects")
            try:
                yield Bench(scheduler, stream, grader)
            finally:
                grader.go.release(1000)
                await stream.drain(20)
    assert scheduler.violations == []


async def test_heartbeats_go_on_while_a_batch_is_computed() -> None:
    async with bench(MemoryScheduler(heartbeat_seconds=0.05)) as it:
        await it.begin(3)
        heartbeats = it.connection.heartbeats
        await it.scheduler.until(lambda: len(heartbeats) >= 3, "three heartbeats")
        assert {tuple(sorted(tokens)) for tokens in heartbeats} == {tuple(sorted(it.connection.held))}
        it.grader.go.release(2)
        await it.scheduler.until(lambda: len(it.scheduler.graded) == 3, "graded")


async def test_a_cancelled_lease_is_neither_worked_on_nor_reported() -> None:
    async with bench(MemoryScheduler(heartbeat_seconds=0.05)) as it:
        await it.begin(6)
        running, *_, waiting = it.connection.held
        await it.scheduler.cancel(it.connection, [running, waiting])
        await it.scheduler.until(
            lambda: any(len(tokens) == 4 for tokens in it.connection.heartbeats),
            "the heartbeats leave the cancelled ones out",
        )
        it.grader.go.release(3)
        await it.scheduler.until(lambda: len(it.scheduler.graded) == 4, "the other four are graded")
        assert not {running, waiting} & it.connection.seen


async def test_drain_hands_back_what_has_not_begun_and_reports_what_runs() -> None:
    async with bench(MemoryScheduler()) as it:
        await it.begin(6)
        connection = it.connection
        draining = asyncio.create_task(it.stream.drain(20))
        await it.scheduler.until(
            lambda: sum(outcomes[0].HasField("released") for outcomes in it.scheduler.results.values()) == 4,
            "four are handed back",
        )
        assert len(connection.held) == 2
        it.grader.go.release()
        await draining
        await it.scheduler.until(lambda: connection in it.scheduler.ended, "the stream ends")
        assert connection.half_closed
        assert len(it.scheduler.graded) == 2
        assert not connection.held
        await it.stream.drain(20)


async def test_a_drain_that_takes_too_long_hands_back_what_runs() -> None:
    async with bench(MemoryScheduler()) as it:
        await it.begin(2)
        connection = it.connection
        await it.stream.drain(0.05)
        await it.scheduler.until(lambda: connection in it.scheduler.ended, "the stream ends")
        assert connection.half_closed
        assert [one.WhichOneof("result") for (one,) in it.scheduler.results.values()] == ["released"] * 2
        assert len(it.scheduler.waiting["text"]) == 2


async def test_a_drain_that_nobody_takes_note_of_gives_the_leases_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler_stream, "CLOSING_SECONDS", 0.1)
    async with bench(MemoryScheduler(receipts=False)) as it:
        await it.begin(2)
        connection = it.connection
        await it.stream.drain(0.05)
        await it.scheduler.until(lambda: connection in it.scheduler.ended, "the stream ends")
        assert "drain gave up" in caplog.text


async def test_outcomes_of_a_lost_stream_are_dropped() -> None:
    async with bench(MemoryScheduler()) as it:
        await it.begin(2)
        await it.scheduler.cut(it.connection)
        await it.scheduler.until(lambda: bool(it.scheduler.streams), "the worker is back")
        it.grader.go.release(2)
        await it.scheduler.until(lambda: len(it.scheduler.graded) == 2, "graded under new leases")
        assert {len(outcomes) for outcomes in it.scheduler.results.values()} == {1}
        assert it.scheduler.ended[0].seen == set()


async def test_a_stream_that_carried_too_many_items_is_renewed() -> None:
    async with bench(MemoryScheduler(), items_bytes=1) as it:
        it.grader.go.release(100)
        await it.scheduler.put(*(homework("text", number) for number in range(20)))
        await it.scheduler.until(lambda: len(it.scheduler.ended) >= 1, "the first stream ends")
        assert it.scheduler.ended[0].half_closed
        await it.scheduler.until(lambda: bool(it.scheduler.streams), "another one follows")


async def test_drain_before_a_scheduler_was_found_ends_at_once() -> None:
    stream = SchedulerStream(
        "127.0.0.1:9",
        worker="w1",
        settings=StreamSettings(version="1", credits={"text": 1}, compiled=CompiledItems()),
    )
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(stream.run())
        await stream.drain(5)
        assert not stream.connected
