"""Grader processes with the real scheduler on a real Valkey; storage is in memory."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet, Grade
from cinnabar.storage.v1.storage_service_pb2 import OpenTask
from cinnabar_common.names import Bucket, new_id
from cinnabar_grader.app import running
from cinnabar_grader.config import GraderConfig
from tests.support.grader_items import ITEMS, RIGHT
from tests.support.grader_kinds import QUEUE, HeldTasks
from tests.support.grader_process import grader_process
from tests.support.scheduler_process import suite
from tests.support.scheduler_storage import FakeStorage, Stored
from tests.support.waiting import until


def accept(storage: FakeStorage, count: int, *, wrong: Answer | None = None) -> list[OpenTask]:
    """``count`` submissions of one assignment with an item of every kind; the first may be wrong."""
    revision = new_id(Bucket(1))
    storage.revisions[f"t1/{revision}"] = Assignment(items=ITEMS.values()).SerializeToString()
    now = Timestamp()
    now.GetCurrentTime()
    tasks: list[OpenTask] = []
    for number in range(count):
        submission = new_id(Bucket(number % 1024))
        answers = {**RIGHT, wrong.item: wrong} if wrong is not None and number == 0 else RIGHT
        for item in ITEMS:
            task = OpenTask(
                submission_id=submission,
                item_id=item,
                tenant="t1",
                queue=item,
                generation=1,
                priority=3,
                revision_id=revision,
                answers=AnswerSet(answers=answers.values()).SerializeToString(),
                create_time=now,
            )
            storage.tasks[f"{submission}/{item}"] = Stored(task)
            tasks.append(task)
    return tasks


async def test_every_kind_is_graded_while_graders_come_and_go(valkey_url: str, tmp_path: Path) -> None:
    async with suite(valkey_url, tmp_path) as parts:
        scheduler = await parts.scheduler()
        async with (
            grader_process(scheduler.target, tmp_path, "grader-0") as drained,
            grader_process(scheduler.target, tmp_path, "grader-1") as killed,
        ):
            tasks = accept(parts.storage, 500)
            for start in range(0, len(tasks), 500):
                await scheduler.enqueue(tasks[start : start + 500])
            await until(lambda: len(parts.storage.graded) > 50, description="work is under way", seconds=60)
            assert drained.pid is not None
            os.kill(drained.pid, signal.SIGTERM)
            assert await drained.wait() == 0
            await killed.kill()
            async with grader_process(scheduler.target, tmp_path, "grader-2"):
                await until(lambda: parts.storage.open_count == 0, description="all graded", seconds=90)
        assert len(parts.storage.graded) == len(tasks)
        assert all(stored.dead is None for stored in parts.storage.tasks.values())
        for stored in parts.storage.tasks.values():
            grade = Grade.FromString(stored.grade)
            assert grade.score == grade.max_score == ITEMS[stored.open.item_id].points
        stats = await scheduler.stats("text")
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)


async def test_a_killed_scheduler_is_found_again(valkey_url: str, tmp_path: Path) -> None:
    async with suite(valkey_url, tmp_path) as parts:
        scheduler = await parts.scheduler(lease_seconds="1")
        async with grader_process(scheduler.target, tmp_path):
            tasks = accept(parts.storage, 1000)
            await scheduler.enqueue(tasks)
            await until(lambda: len(parts.storage.graded) > 50, description="work is under way", seconds=60)
            await scheduler.process.kill()
            assert parts.storage.open_count > 0
            await scheduler.process.start()
            await until(lambda: parts.storage.open_count == 0, description="all graded", seconds=90)
        assert len(parts.storage.graded) == len(tasks)


async def test_a_task_that_cannot_be_graded_ends_as_a_dead_letter_with_its_reason(
    valkey_url: str, tmp_path: Path
) -> None:
    async with suite(valkey_url, tmp_path) as parts:
        scheduler = await parts.scheduler(
            policy="[queues.default.retry]\nfailed = { attempts = 2, base_seconds = 0.01, cap_seconds = 1 }"
        )
        async with grader_process(scheduler.target, tmp_path):
            tasks = accept(parts.storage, 3, wrong=Answer(item="numeric", text="fast"))
            await scheduler.enqueue(tasks)
            await until(lambda: parts.storage.open_count == 0, description="all dealt with", seconds=60)
        dead = {name: stored.dead for name, stored in parts.storage.tasks.items() if stored.dead is not None}
        assert list(dead) == [f"{tasks[0].submission_id}/numeric"]
        assert [letter.reason for letter in dead.values()] == ["the answer is not of the type of its item"]
        assert len(parts.storage.graded) == len(tasks) - 1


async def test_a_stopped_grader_swallows_its_credits_once_and_works_on_when_it_is_back(
    valkey_url: str, tmp_path: Path
) -> None:
    async with suite(valkey_url, tmp_path) as parts:
        scheduler = await parts.scheduler(lease_seconds="2")

        async def granted(workers: int) -> bool:
            stats = await scheduler.stats("choice")
            return stats.workers == workers and stats.credits >= workers * 200

        async def lot() -> None:
            done = len(parts.storage.graded)
            tasks = [task for task in accept(parts.storage, 100) if task.queue != "free-text"]
            parts.storage.tasks = {
                name: stored
                for name, stored in parts.storage.tasks.items()
                if stored.open.queue != "free-text"
            }
            await scheduler.enqueue(tasks)
            await until(lambda: len(parts.storage.graded) == done + 300, description="a lot", seconds=30)

        async with grader_process(scheduler.target, tmp_path, "grader-0") as stopped:
            await until(lambda: granted(1), description="credits of the first")
            async with grader_process(scheduler.target, tmp_path, "grader-1"):
                await until(lambda: granted(2), description="credits of both")
                stopped.pause()
                await lot()  # its share comes back when the leases expire
                await until(lambda: "worker says nothing" in scheduler.log(), description="it is noticed")
                expired = scheduler.log().count("leases expired")
                assert expired >= 1
                await lot()
                assert scheduler.log().count("leases expired") == expired
                stopped.resume()
                await until(lambda: granted(2), description="credits of both again")
            await lot()


async def test_work_that_is_handed_back_starts_elsewhere_at_once_and_pools_follow_the_scheduler(
    valkey_url: str, tmp_path: Path
) -> None:
    def grading(name: str, grader: HeldTasks) -> AbstractAsyncContextManager[int]:
        config = GraderConfig(
            scheduler_target=scheduler.target,
            listen="127.0.0.1:0",
            queues=(QUEUE,),
            worker=name,
            min_workers=2,
            max_workers=4,
            scale_seconds=0.2,
            drain_seconds=0.05,
        )
        return running(config, [grader.kind()])

    async with suite(valkey_url, tmp_path) as parts, AsyncExitStack() as leaving:
        scheduler = await parts.scheduler(lease_seconds="1")
        first, second = HeldTasks(), HeldTasks()
        await leaving.enter_async_context(grading("first", first))
        revision = parts.storage.add_revision()
        await scheduler.enqueue(parts.storage.add_tasks(12, revision=revision, queue=QUEUE))
        await until(lambda: len(first.running) == 4, "the pool has grown, by what the pulses say")
        async with grading("second", second):
            await until(lambda: len(second.running) >= 2, "the other one works too")
            second.go(100)
            await until(lambda: len(parts.storage.graded) == 8, "all that the first one does not hold")
            began = time.monotonic()
            await leaving.aclose()
            await until(lambda: parts.storage.open_count == 0, "what the first one held")
            assert time.monotonic() - began < 5
        assert not first.running
        stats = await scheduler.stats(QUEUE)
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)
        assert not any(stored.dead for stored in parts.storage.tasks.values())
