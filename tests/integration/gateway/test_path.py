"""The path of a submission through the gateway, on real storage, scheduler and graders."""

import asyncio

import grpc
import pytest
from grpc_status import rpc_status

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_gateway.consistency import TOKEN_KEY
from tests.support.gateway_suite import PARENT, Real, create_request, real_gateway
from tests.support.gateway_world import INSTRUCTOR, OPERATOR, STUDENT, refusal_of
from tests.support.waiting import until

State = pb.Submission.State
SECONDS = 30.0


async def watched(real: Real, name: str) -> list[pb.Submission]:
    """All states that a watch shows until it ends."""
    async with asyncio.timeout(SECONDS):
        call = real.submissions.WatchSubmission(pb.WatchSubmissionRequest(name=name), metadata=INSTRUCTOR)
        return [response.submission async for response in call]


async def health(real: Real) -> operations_pb.HealthReport:
    """The report, also when it comes as an error."""
    report = operations_pb.HealthReport()
    try:
        return await real.operations.GetHealth(operations_pb.GetHealthRequest())
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        if status is None or not any(detail.Unpack(report) for detail in status.details):
            raise
        return report


async def healthy(real: Real) -> None:
    """Waits until the gateway reaches everything."""

    async def all_passed() -> bool:
        return (await health(real)).status == "healthy"

    await until(all_passed, description="every dependency is reached")


async def test_a_submission_is_graded_and_its_watcher_sees_it(real: Real) -> None:
    async with real.scheduler(), real.grader():
        call = real.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
        created = await call
        token = str(dict(await call.initial_metadata())[TOKEN_KEY])
        read = await real.submissions.GetSubmission(
            pb.GetSubmissionRequest(name=created.name), metadata=(*STUDENT, (TOKEN_KEY, token))
        )
        assert read.answers == created.answers
        states = await watched(real, created.name)
        assert [one.score for one in states] == sorted(one.score for one in states)
        last = states[-1]
        assert last.state == State.GRADED
        assert [result.item for result in last.results] == ["pick", "count", "name"]
        assert all(result.grade.criteria[0].provenance.grader for result in last.results)
        assert last.score == sum(result.grade.score for result in last.results) == 2
        again = await real.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
        assert last.etag
        last.ClearField("etag")  # as in the first answer
        assert again == last


async def test_batches_and_streams_are_graded_to_the_last(real: Real) -> None:
    async with real.scheduler(), real.grader():
        batch = pb.BatchCreateSubmissionsRequest(
            parent=PARENT, requests=[create_request(f"s{number}") for number in range(200)]
        )
        response = await real.submissions.BatchCreateSubmissions(batch, metadata=INSTRUCTOR)
        names = {result.submission.name for result in response.results}
        stream = real.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
        for number in range(20):
            requests = [create_request(f"t{number}-{index}") for index in range(20)]
            await stream.write(pb.StreamCreateSubmissionsRequest(batch_id=number, requests=requests))
        await stream.done_writing()
        async for ack in stream:
            names |= {result.submission.name for result in ack.results}
        assert len(names) == 600
        last = await asyncio.gather(*(watched(real, name) for name in names))
        assert {states[-1].state for states in last} == {State.GRADED}
        listed: set[str] = set()
        request = pb.ListSubmissionsRequest(parent=PARENT, page_size=170)
        while True:
            page = await real.submissions.ListSubmissions(request, metadata=INSTRUCTOR)
            listed |= {one.name for one in page.submissions}
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert listed == names


async def test_what_is_accepted_without_a_scheduler_is_graded_when_it_comes(real: Real) -> None:
    created = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)
    assert created.state == State.QUEUED
    watching = asyncio.ensure_future(watched(real, created.name))
    async with real.scheduler(), real.grader():
        assert (await watching)[-1].state == State.GRADED


async def test_a_cancelled_submission_leaves_the_queue(real: Real) -> None:
    async with real.scheduler():
        await healthy(real)
        created = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)

        async def waiting(count: int) -> bool:
            response = await real.operations.ListQueues(operations_pb.ListQueuesRequest(), metadata=OPERATOR)
            return sum(queue.ready for queue in response.queues) == count

        await until(lambda: waiting(3), description="the tasks are queued")
        cancelled = await real.submissions.CancelSubmission(
            pb.CancelSubmissionRequest(name=created.name), metadata=STUDENT
        )
        assert cancelled.state == State.CANCELLED
        await until(lambda: waiting(0), description="the tasks are gone")
        assert (await watched(real, created.name))[-1].state == State.CANCELLED


async def test_what_a_person_grades_waits_for_no_grader(real: Real) -> None:
    async with real.scheduler():
        await healthy(real)
        created = await real.submissions.CreateSubmission(create_request(), metadata=STUDENT)

        async def waiting(count: int) -> bool:
            response = await real.operations.ListQueues(operations_pb.ListQueuesRequest(), metadata=OPERATOR)
            return sum(queue.ready for queue in response.queues) == count

        await until(lambda: waiting(3), description="the tasks are queued")
        watching = asyncio.ensure_future(watched(real, created.name))
        wanted = pb.OverrideGradeRequest(name=created.name, item="pick", score=0.5, reason="told orally")
        overridden = await real.submissions.OverrideGrade(wanted, metadata=INSTRUCTOR)
        assert (overridden.results[0].overridden, overridden.score) == (True, 0.5)
        await until(lambda: waiting(2), description="its task is gone")
        async with real.grader():
            last = (await watching)[-1]
        assert last.state == State.GRADED
        assert [(result.generation, result.overridden) for result in last.results] == [
            (1, True),
            (1, False),
            (1, False),
        ]
        assert last.results[0].grade.score == 0.5


async def test_health_names_what_is_down(real: Real) -> None:
    report = await health(real)
    names = [check.name for check in report.checks]
    assert names == ["storage", "database", "objects", "scheduler", "redis", "ai_service"]
    down = {check.name for check in report.checks if check.status != "healthy"}
    assert (report.status, down) == ("unhealthy", {"scheduler", "redis", "ai_service"})
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await real.operations.GetHealth(operations_pb.GetHealthRequest())
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert refusal.retry_after is not None
    async with real.scheduler():
        await healthy(real)


async def test_operators_see_the_graders_of_each_queue(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await healthy(real)

        async def counted() -> bool:
            response = await real.operations.ListQueues(operations_pb.ListQueuesRequest(), metadata=OPERATOR)
            workers = {queue.queue: queue.workers for queue in response.queues}
            return workers.items() >= {"choice": 1, "free-text": 0, "numeric": 1, "text": 1}.items()

        await until(counted, description="the grader is counted")


async def test_without_storage_a_call_is_refused_for_now(valkey_url: str) -> None:
    async with real_gateway("127.0.0.1:1", valkey_url) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.submissions.CreateSubmission(create_request(), metadata=STUDENT)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
