"""A program that is being graded, watched through the gateway and a real scheduler."""

import asyncio
from collections.abc import Callable

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1 import grade_pb2
from cinnabar.scheduler.v1 import work_service_pb2 as work_pb
from tests.support.gateway_code import code_answers, code_grade, code_item
from tests.support.gateway_suite import Real
from tests.support.gateway_world import COURSE, INSTRUCTOR, STUDENT
from tests.support.scheduler_worker import worker

FIRST, SECOND = code_grade().tests
QUEUE = "code-python"


async def test_a_watcher_sees_the_first_test_while_the_second_runs(real: Real) -> None:
    parent = f"{COURSE}/assignments/programs"
    await real.assignments.CreateAssignment(
        assignments_pb.CreateAssignmentRequest(
            parent=COURSE, assignment=assignments_pb.Assignment(items=[code_item()]), assignment_id="programs"
        ),
        metadata=INSTRUCTOR,
    )
    async with real.scheduler(), worker(real.scheduler_target, "w1") as grader:
        await grader.hello(QUEUE)
        request = pb.CreateSubmissionRequest(
            parent=parent, submission=pb.Submission(answers=code_answers()[:1])
        )
        made = await real.submissions.CreateSubmission(request, metadata=STUDENT)
        (lease,) = await grader.take(1, QUEUE, seconds=20)
        assert lease.answer.code.files[0].path == "main.py"
        assert grader.items[lease.item_key] == code_item()
        watch = real.submissions.WatchSubmission(pb.WatchSubmissionRequest(name=made.name), metadata=STUDENT)

        async def until(condition: Callable[[pb.ItemResult], bool]) -> pb.ItemResult:
            async with asyncio.timeout(20):
                while True:
                    response = await watch.read()
                    assert isinstance(response, pb.WatchSubmissionResponse)
                    if condition(response.submission.results[0]):
                        return response.submission.results[0]

        await until(lambda result: not result.progress)
        await grader.progress(lease, FIRST)
        shown = await until(lambda result: len(result.progress) == 1)
        assert list(shown.progress) == [FIRST]
        assert not shown.HasField("grade")
        await grader.progress(lease, FIRST, SECOND)
        shown = await until(lambda result: len(result.progress) == 2)
        assert (shown.progress[1].test, shown.progress[1].output) == ("hidden-call", "")

        grade = code_grade()
        for criterion in grade.criteria:
            criterion.provenance.CopyFrom(grade_pb2.Provenance(grader="code", version="1"))
        outcome = work_pb.Outcome(lease_token=lease.lease_token, grade=grade)
        assert await grader.report(outcome) == [work_pb.Receipt.COMMITTED]
        shown = await until(lambda result: result.HasField("grade"))
        assert not shown.progress
        assert shown.grade.tests[1].message == ""
