"""Progress through real schedulers: told to one, seen at both, and followers hear of it."""

import asyncio

import grpc
import pytest

from cinnabar.grader.v1 import grade_pb2
from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from tests.support.scheduler_process import SchedulerProcess, Shared
from tests.support.scheduler_worker import worker
from tests.support.waiting import until

Result = grade_pb2.TestResult
FIRST = Result(test="first", verdict=Result.ACCEPTED, score=1, max_score=1, output="ok")
SECOND = Result(test="second", verdict=Result.WRONG_ANSWER, max_score=1, message="not it", hidden=True)
QUEUE = "free-text"


async def known(scheduler: SchedulerProcess, lease: pb.LeasedTask) -> list[grade_pb2.TestResult]:
    task = queue_pb.GetProgressRequest.Task(task=lease.task, queue=QUEUE, generation=lease.generation)
    response = await scheduler.queue.GetProgress(queue_pb.GetProgressRequest(tasks=[task]), timeout=5)
    (progress,) = response.progress
    return list(progress.tests)


async def test_what_a_worker_tells_is_seen_everywhere_until_the_grade_is_there(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await one.take(1)
        submission = lease.task.partition("/")[0]
        follow = shared.other.queue.Follow()
        await follow.write(queue_pb.FollowRequest(add=[submission]))
        assert await follow.read() == queue_pb.FollowResponse()
        assert await known(shared.other, lease) == []

        async with asyncio.timeout(10):
            news = asyncio.ensure_future(follow.read())
            while not news.done():  # the other scheduler may not know yet of what is followed
                await one.progress(lease, FIRST)
                await asyncio.wait((news,), timeout=0.1)
        assert news.result() == queue_pb.FollowResponse(submission_ids=[submission])
        assert await known(shared.other, lease) == [FIRST]

        for number in range(200):  # more than are written: the newest wins
            await one.progress(lease, FIRST, Result(test="second", score=number / 1000))
        await one.progress(lease, FIRST, SECOND)

        async def both() -> bool:
            return await known(shared.scheduler, lease) == [FIRST, SECOND]

        await until(both, description="the newest progress is known")
        assert await one.grade([lease]) == [pb.Receipt.COMMITTED]
        assert await known(shared.other, lease) == []
        follow.cancel()


async def test_progress_of_a_lease_that_is_not_held_is_refused(shared: Shared) -> None:
    async with (
        worker(shared.scheduler.target, "first") as first,
        worker(shared.other.target, "second") as second,
    ):
        await first.hello()
        await second.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await first.take(1)
        await second.progress(lease, FIRST)
        await second.until(lambda: lease.lease_token in second.cancelled, "the refusal")
        assert await known(shared.scheduler, lease) == []
        assert lease.lease_token not in first.cancelled


async def test_too_much_is_cut_to_verdicts(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await one.take(1)
        loud = [
            Result(test=f"t{number}", verdict=Result.ACCEPTED, score=1, max_score=1, output="x" * 4000)
            for number in range(100)
        ]
        await one.progress(lease, *loud)
        for test in loud:
            test.ClearField("output")

        async def cut() -> bool:
            return await known(shared.scheduler, lease) == loud

        await until(cut, description="the verdicts are known")
        await one.progress(lease, *(loud * 20))  # too many: what was known stays
        assert await one.grade([lease]) == [pb.Receipt.COMMITTED]


async def test_bad_requests_are_explained(shared: Shared) -> None:
    task = queue_pb.GetProgressRequest.Task
    for tasks, words in (
        ([task(task="a/b", queue="Q!", generation=1)], "tasks[0].queue"),
        ([task(task="a", queue=QUEUE, generation=1)], "tasks[0].task"),
        ([task(task="a/b", queue=QUEUE)], "tasks[0].generation"),
        ([task(task="a/b", queue=QUEUE, generation=1)] * 1001, "at most 1000"),
    ):
        request = queue_pb.GetProgressRequest(tasks=tasks)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shared.scheduler.queue.GetProgress(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in str(caught.value.details())
