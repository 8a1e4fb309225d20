"""Graders in worker processes, against a scheduler that speaks the worker protocol over real gRPC."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from tests.support.grader_kinds import CRASHING, CRASHING_KIND, QUEUE, HeldTasks, crashing, held
from tests.support.grader_scheduler import MemoryScheduler, scheduler_running
from tests.support.waiting import until


def children() -> list[psutil.Process]:
    """The worker processes of the grader that runs here."""
    return [
        child
        for child in psutil.Process().children()
        if any("cinnabar_grader.processes.child" in part for part in child.cmdline())
    ]


@asynccontextmanager
async def grading(scheduler: MemoryScheduler, **settings: float) -> AsyncGenerator[HeldTasks]:
    waiting = HeldTasks()
    async with scheduler_running(scheduler) as address:
        config = GraderConfig(
            scheduler_target=address,
            listen="127.0.0.1:0",
            queues=(CRASHING, QUEUE),
            **settings,  # pyright: ignore[reportArgumentType]
        )
        async with running(config, [CRASHING_KIND, waiting.kind()]):
            await scheduler.until(
                lambda: any(stream.credits.get(CRASHING, 0) for stream in scheduler.streams), "it is ready"
            )
            yield waiting
        await scheduler.until(lambda: not scheduler.streams, "the stream ended")
    assert scheduler.violations == []
    assert children() == []


async def test_a_poison_task_is_found_alone_and_harms_nobody_else() -> None:
    scheduler = MemoryScheduler(attempts=3)
    async with grading(scheduler):
        await scheduler.put(*(crashing(number, "die" if number == 2 else "") for number in range(4)))
        await scheduler.until(
            lambda: len(scheduler.graded) == 3 and scheduler.leased["s2/crashing"] == 3, "three grades"
        )
        await scheduler.until(lambda: len(scheduler.results["s2/crashing"]) == 3, "the last failure")
    failures = [one.failure for one in scheduler.results["s2/crashing"]]
    assert {(one.code, one.message) for one in failures} == {(13, "the worker process: ended by SIGKILL")}
    assert [scheduler.leased[f"s{number}/crashing"] for number in range(4)] == [2, 2, 3, 2]
    assert {scheduler.graded[f"s{number}/crashing"].grade.feedback[-2:] for number in (0, 1, 3)} == {" 1"}


async def test_killed_under_load_nothing_is_lost() -> None:
    scheduler = MemoryScheduler(attempts=20, max_leases=50)
    async with grading(scheduler):
        await scheduler.put(*(crashing(number) for number in range(1200)))
        await scheduler.until(lambda: len(scheduler.graded) > 100, "work is under way")
        for child in children():
            os.kill(child.pid, signal.SIGKILL)
        await scheduler.until(lambda: len(scheduler.graded) == 1200, "all graded", 30)
    assert sum(len(outcomes) for outcomes in scheduler.results.values()) < 1200 + 50


async def test_what_does_not_finish_in_time_is_handed_back() -> None:
    scheduler = MemoryScheduler(heartbeat_seconds=0.05)
    async with grading(scheduler, drain_seconds=0.05):
        await scheduler.put(*(crashing(number, "hang") for number in range(6)))
        beats = scheduler.streams[0].heartbeats
        await scheduler.until(lambda: len(beats[-1]) == 6, "all are there")
    assert {one.WhichOneof("result") for (one,) in scheduler.results.values()} == {"released"}
    assert len(scheduler.waiting[CRASHING]) == 6


async def test_grows_with_what_the_scheduler_says_and_shrinks_without_ending_work() -> None:
    scheduler = MemoryScheduler(heartbeat_seconds=0.05)
    load = pb.Pulse.QueueLoad(queue=QUEUE, ready=50, workers=1)
    load.predicted_work.FromSeconds(500)
    scheduler.loads = [load]
    async with grading(scheduler, scale_seconds=0.05, max_workers=5) as waiting:
        stream = scheduler.streams[0]
        await scheduler.until(lambda: stream.credits.get(QUEUE, 0) == 5, "credits for the most")
        await scheduler.put(*(held(number) for number in range(8)))
        await until(lambda: len(waiting.running) == 5, "five work at once")
        quiet = pb.Pulse.QueueLoad(queue=QUEUE)
        quiet.predicted_work.SetInParent()
        scheduler.loads = [quiet]
        waiting.go(8 * 2)
        await scheduler.until(lambda: len(scheduler.graded) == 8, "all graded")
