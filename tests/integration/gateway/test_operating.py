"""What operators do, and what times mean, on real storage, scheduler and graders."""

import asyncio
import time

import grpc
import pytest
from google.rpc import code_pb2, status_pb2

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.scheduler.v1.work_service_pb2 import Outcome
from tests.support.gateway_suite import PARENT, Real, create_request
from tests.support.gateway_world import OPERATOR, STUDENT, refusal_of
from tests.support.scheduler_worker import worker as connected
from tests.support.waiting import until

State = submissions_pb.Submission.State
QUEUES = ("choice", "numeric", "text")
SECONDS = 30.0


async def queues(real: Real) -> dict[str, pb.Queue]:
    """All queues by name."""
    listed = await real.operations.ListQueues(pb.ListQueuesRequest(), metadata=OPERATOR)
    return {queue.queue: queue for queue in listed.queues}


async def served(real: Real, workers: int = 1) -> None:
    """Waits until somebody grades what rules grade."""

    async def counted() -> bool:
        try:
            found = await queues(real)
        except grpc.aio.AioRpcError:
            return False
        return all(queue in found and found[queue].workers == workers for queue in QUEUES)

    await until(counted, description="the graders are there")


async def created(real: Real, request: submissions_pb.CreateSubmissionRequest) -> submissions_pb.Submission:
    """A submission of the student."""
    return await real.submissions.CreateSubmission(request, metadata=STUDENT)


async def read(real: Real, name: str) -> submissions_pb.Submission:
    """The submission now."""
    request = submissions_pb.GetSubmissionRequest(name=name)
    return await real.submissions.GetSubmission(request, metadata=STUDENT)


async def watched(real: Real, name: str) -> submissions_pb.Submission:
    """The state with which a watch ends."""
    last = submissions_pb.Submission()
    async with asyncio.timeout(SECONDS):
        request = submissions_pb.WatchSubmissionRequest(name=name)
        async for response in real.submissions.WatchSubmission(request, metadata=STUDENT):
            last = response.submission
    return last


async def watched_again(real: Real, name: str) -> submissions_pb.Submission:
    """The same, once the redrive of a failed one can be read."""

    async def is_open() -> bool:
        return (await read(real, name)).state != State.FAILED

    await until(is_open, description="the redrive can be read")
    return await watched(real, name)


async def dead_letters(real: Real, *, queue: str = "", reason: str = "") -> list[pb.DeadLetter]:
    """Those of a filter."""
    request = pb.ListDeadLettersRequest(queue=queue, parent=PARENT, reason=reason)
    return list((await real.operations.ListDeadLetters(request, metadata=OPERATOR)).dead_letters)


async def conserved(real: Real, **expected: int) -> pb.Conservation:
    """Waits until nothing moves and every task is accounted for, with these counts; returns them all."""
    counted = pb.Conservation()

    async def holds() -> bool:
        nonlocal counted
        counted = await real.operations.GetConservation(pb.GetConservationRequest(), metadata=OPERATOR)
        in_redis = counted.queued + counted.waiting + counted.leased
        return (
            counted.balanced
            and counted.open == in_redis
            and all(getattr(counted, field) == value for field, value in expected.items())
        )

    try:
        await until(holds, description=f"conservation with {expected}", seconds=SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {counted}") from None
    return counted


async def test_a_paused_queue_lets_tasks_wait_and_a_resumed_one_grades_them(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await served(real)
        paused = await real.operations.PauseQueue(pb.PauseQueueRequest(queue="numeric"), metadata=OPERATOR)
        assert (paused.state, paused.workers) == (pb.Queue.PAUSED, 1)
        submission = await created(real, create_request())

        async def others_are_graded() -> bool:
            return [one.HasField("grade") for one in (await read(real, submission.name)).results].count(
                True
            ) == 2

        await until(others_are_graded, description="the other queues go on")
        numeric = (await queues(real))["numeric"]
        assert (numeric.state, numeric.ready, numeric.leased) == (pb.Queue.PAUSED, 1, 0)
        await conserved(real, accepted=3, open=1, graded=2, queued=1)
        await real.operations.ResumeQueue(pb.ResumeQueueRequest(queue="numeric"), metadata=OPERATOR)
        assert (await watched(real, submission.name)).state == State.GRADED
        await conserved(real, accepted=3, open=0, graded=3)


async def test_a_draining_queue_finishes_and_takes_nothing_new(real: Real) -> None:
    async with real.scheduler():
        await served(real, workers=0)
        waiting = await created(real, create_request(request_id="before"))
        await real.operations.DrainQueue(pb.DrainQueueRequest(queue="text"), metadata=OPERATOR)
        refused: list[str] = []

        async def is_refused() -> bool:
            try:
                await created(real, create_request())
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                assert refusal.metadata == {"queue": "text"}
                refused.append(refusal.reason)
                return True
            return False

        await until(is_refused, description="the gateway hears of the drain")
        assert refused == ["QUEUE_DRAINING"]
        assert (await created(real, create_request(request_id="before"))).name == waiting.name
        async with real.grader():
            assert (await watched(real, waiting.name)).state == State.GRADED
            resumed = await real.operations.ResumeQueue(
                pb.ResumeQueueRequest(queue="text"), metadata=OPERATOR
            )
            assert resumed.state == pb.Queue.RUNNING

            async def is_accepted() -> bool:
                return not await is_refused()

            await until(is_accepted, description="the gateway hears of the end of the drain")


async def test_an_unknown_queue_is_not_found(real: Real) -> None:
    async with real.scheduler():
        await served(real, workers=0)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await real.operations.PauseQueue(pb.PauseQueueRequest(queue="nobody"), metadata=OPERATOR)
        refusal = refusal_of(raised.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert refusal.metadata == {"resource": "queues/nobody"}


async def test_what_was_given_up_is_redriven_by_filter(real: Real) -> None:
    async with real.scheduler():
        await served(real, workers=0)
        async with connected(real.scheduler_target) as worker:
            await worker.hello(*QUEUES)
            submission = await created(real, create_request())
            leases = {queue: (await worker.take(1, queue))[0] for queue in QUEUES}
            hopeless = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="no such unit")
            token = leases.pop("numeric").lease_token
            await worker.report(Outcome(lease_token=token, failure=hopeless))
            await worker.grade(leases.values())
            failed = await watched(real, submission.name)
            assert failed.state == State.FAILED
            [letter] = await dead_letters(real, queue="numeric", reason="such unit")
            assert (letter.submission, letter.item, letter.generation) == (submission.name, "count", 1)
            await conserved(real, accepted=3, dead_lettered=1, graded=2)
            wanted = pb.ListDeadLettersRequest(reason="such unit")
            redrive = pb.RedriveDeadLettersRequest(filter=wanted)
            answer = await real.operations.RedriveDeadLetters(redrive, metadata=OPERATOR)
            assert (answer.redriven, list(answer.refused), answer.more) == (1, [], False)
            await worker.grade(await worker.take(1, "numeric"))
            await conserved(real, accepted=3, dead_lettered=0, graded=3)
            assert (await read(real, submission.name)).state == State.GRADED
            task = pb.RedriveDeadLettersRequest.Task(submission=submission.name, item="count")
            named = pb.RedriveDeadLettersRequest(tasks=[task])
            answer = await real.operations.RedriveDeadLetters(named, metadata=OPERATOR)
            [refusal] = answer.refused
            assert (answer.redriven, refusal.error.code) == (0, code_pb2.FAILED_PRECONDITION)


async def test_what_misses_its_deadline_fails(real: Real) -> None:
    async with real.scheduler():
        await served(real, workers=0)
        request = create_request()
        request.submission.grade_by.FromMilliseconds(int(time.time() * 1000) + 1500)
        submission = await created(real, request)
        assert submission.state == State.QUEUED
        failed = await watched(real, submission.name)
        assert failed.state == State.FAILED
        assert failed.grade_by == request.submission.grade_by
        assert failed.update_time.ToMilliseconds() >= failed.grade_by.ToMilliseconds()
        letters = await dead_letters(real)
        assert sorted(letter.queue for letter in letters) == sorted(QUEUES)
        assert all("deadline" in letter.reason for letter in letters), letters
        await conserved(real, accepted=3, dead_lettered=3)
        redrive = pb.RedriveDeadLettersRequest(filter=pb.ListDeadLettersRequest(parent=PARENT))
        answer = await real.operations.RedriveDeadLetters(redrive, metadata=OPERATOR)
        assert answer.redriven == 3
        async with real.grader():  # a deadline that has passed does not outlive a redrive
            assert (await watched_again(real, submission.name)).state == State.GRADED
        await conserved(real, accepted=3, graded=3)


async def test_what_is_delayed_waits_for_its_time(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await served(real)
        request = create_request()
        request.submission.grade_after.FromMilliseconds(int(time.time() * 1000) + 2500)
        submission = await created(real, request)

        async def waits() -> bool:
            return [queue.delayed for queue in (await queues(real)).values() if queue.queue in QUEUES] == [
                1
            ] * 3

        await until(waits, description="the tasks wait for their time")
        graded = await watched(real, submission.name)
        assert graded.state == State.GRADED
        assert graded.grade_after == request.submission.grade_after
        for result in graded.results:
            assert result.HasField("grade")
        assert graded.update_time.ToMilliseconds() >= graded.grade_after.ToMilliseconds()
        await conserved(real, accepted=3, graded=3)


async def test_a_create_says_when_to_expect_its_grade(real: Real) -> None:
    async with real.scheduler(), real.grader():
        await served(real)
        estimates: list[submissions_pb.GradingEstimate] = []

        async def promised() -> bool:
            submission = await created(real, create_request())
            await watched(real, submission.name)
            if submission.HasField("estimate"):
                estimates.append(submission.estimate)
            return bool(estimates)

        await until(promised, description="service times are measured", seconds=SECONDS)
        assert 0 < estimates[0].p50.ToMicroseconds() <= estimates[0].p90.ToMicroseconds()
        assert estimates[0].position >= 0
        shown = (await queues(real))["text"]
        assert 0 < shown.service_p50.ToMicroseconds() <= shown.service_p90.ToMicroseconds()
