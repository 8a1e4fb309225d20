"""Recovery on the real storage service: two shards of Postgres, Valkey, and two scheduler processes."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet
from cinnabar.scheduler.v1 import queue_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2 as storage_pb
from cinnabar_common.redis_connection import connect
from tests.support.scheduler_process import SchedulerProcess, Suite
from tests.support.scheduler_storage import FakeStorage
from tests.support.servers import ShardUrls
from tests.support.storage_records import new_submission
from tests.support.storage_service import Storage, storage_on
from tests.support.waiting import until

QUEUE = "text"
ANSWERS = AnswerSet(answers=[Answer(item="q1", text="an answer")]).SerializeToString()


@dataclass(frozen=True, slots=True)
class World:
    """Two schedulers on real storage."""

    storage: Storage
    schedulers: tuple[SchedulerProcess, SchedulerProcess]
    redis_url: str

    async def accept(self, count: int, *, grade_by: float | None = None) -> list[storage_pb.NewSubmission]:
        """Commits submissions that nobody enqueues; ``grade_by`` is in seconds from now."""
        submissions = [new_submission(answers=ANSWERS) for _ in range(count)]
        for submission in submissions:
            if grade_by is not None:
                then = Timestamp()
                then.FromMilliseconds(int((time.time() + grade_by) * 1000))
                submission.grade_by.CopyFrom(then)
        await self.storage.writer.CreateSubmissions(
            storage_pb.CreateSubmissionsRequest(submissions=submissions), timeout=10
        )
        return submissions

    async def flush(self) -> None:
        """Redis loses everything."""
        redis = cast("Any", connect(self.redis_url, timeout_seconds=5))
        await redis.flushdb()
        await redis.aclose()

    async def ready(self, count: int, *, seconds: float = 30) -> None:
        """Waits until so many tasks are ready."""

        async def reached() -> bool:
            return (await self.schedulers[1].stats(QUEUE)).ready == count

        await until(reached, f"{count} ready tasks", seconds=seconds)

    async def conservation(self) -> pb.GetConservationResponse:
        """As any scheduler counts it."""
        return await self.schedulers[1].queue.GetConservation(pb.GetConservationRequest(), timeout=5)


@pytest_asyncio.fixture
async def world(migrated_shards: list[ShardUrls], valkey_url: str, tmp_path: Path) -> AsyncGenerator[World]:
    """Empty."""
    async with storage_on(migrated_shards) as storage:
        suite = Suite(valkey_url, FakeStorage(), storage.address, tmp_path)
        try:
            one, two = [await suite.scheduler(sweep_seconds="0.5") for _ in range(2)]
            yield World(storage, (one, two), valkey_url)
        finally:
            await suite.close()


async def test_tasks_are_where_they_belong_whatever_is_lost(world: World) -> None:
    submissions = await world.accept(2_100)
    await world.ready(2_100)  # the sweep finds what was never enqueued
    await world.schedulers[1].queue.ControlQueue(
        pb.ControlQueueRequest(queue=QUEUE, state=pb.PAUSED, actor="ops"), timeout=5
    )
    began = time.monotonic()
    await world.flush()
    await world.ready(2_100)
    print(f"\n2,100 tasks queued again after {time.monotonic() - began:.2f} s")  # noqa: T201

    async def paused() -> bool:
        return (await world.schedulers[0].stats(QUEUE)).state == pb.PAUSED

    await until(paused, "the pause that outlives the flush")

    cancelled = submissions[:7]
    await world.storage.writer.CancelSubmissions(
        storage_pb.CancelSubmissionsRequest(
            submissions=[
                storage_pb.SubmissionKey(tenant=one.tenant, submission_id=one.submission_id)
                for one in cancelled
            ],
            actor="student",
        ),
        timeout=5,
    )
    await world.ready(2_093)  # nobody told the queue

    await world.accept(3, grade_by=1.0)

    async def ended() -> bool:
        counts = await world.conservation()
        return (counts.dead_lettered, counts.cancelled, counts.queued) == (3, 7, 2_093)

    await until(ended, "dead letters of those whose deadline passed", seconds=30)

    async def swept() -> bool:
        counts = await world.conservation()
        return counts.HasField("sweep_time") and counts.missing == counts.orphaned == 0

    await until(swept, "a sweep that finds nothing", seconds=30)
    counts = await world.conservation()
    assert counts.balanced
    assert (counts.accepted, counts.open, counts.graded) == (2_103, 2_093, 0)
    assert (counts.waiting, counts.leased) == (0, 0)
    assert all('"level": "error"' not in one.log() for one in world.schedulers)
