"""Progress of what is being graded, in Get and Watch."""

import asyncio
from collections.abc import Sequence

import pytest

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1 import grade_pb2
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryQueue
from cinnabar_gateway.records import RunningTask
from tests.support.gateway_code import code_answers, code_grade, code_items, llm_item
from tests.support.gateway_world import COURSE, INSTRUCTOR, PARENT, STUDENT, Metadata, World, key_of, world
from tests.support.waiting import until

TOLD = grade_pb2.Grade(tests=code_grade().tests)


class Asked(MemoryQueue):
    """Remembers what it was asked; fails, or does not answer, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RunningTask] = []
        self.failure: Exception | None = None
        self.silent = False

    async def progress(self, tasks: Sequence[RunningTask]) -> list[bytes]:
        self.asked += tasks
        if self.silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return await super().progress(tasks)

    def tell(self, submission: pb.Submission) -> None:
        """The first test of the program, and a hidden one, are finished."""
        self.told[f"{key_of(submission).submission_id}/search", 1] = TOLD.SerializeToString()


async def submitted(it: World) -> pb.Submission:
    await it.assignments.CreateAssignment(
        assignments_pb.CreateAssignmentRequest(
            parent=COURSE, assignment=assignments_pb.Assignment(items=code_items()), assignment_id="a1"
        ),
        metadata=INSTRUCTOR,
    )
    request = pb.CreateSubmissionRequest(parent=PARENT, submission=pb.Submission(answers=code_answers()))
    created = await it.submissions.CreateSubmission(request, metadata=STUDENT)
    await until(lambda: len(it.queue.tasks) == len(code_items()), "the tasks are queued")
    return created


async def get(it: World, made: pb.Submission, who: Metadata = STUDENT) -> pb.Submission:
    return await it.submissions.GetSubmission(pb.GetSubmissionRequest(name=made.name), metadata=who)


async def test_readers_and_watchers_see_the_tests_that_are_finished() -> None:
    queue = Asked()
    async with world(queue=queue) as it:
        made = await submitted(it)
        call = it.submissions.WatchSubmission(pb.WatchSubmissionRequest(name=made.name), metadata=STUDENT)
        first = await call.read()
        assert isinstance(first, pb.WatchSubmissionResponse)
        assert not first.submission.results[0].progress

        queue.tell(made)
        it.changes.announce([key_of(made).submission_id])
        second = await call.read()
        assert isinstance(second, pb.WatchSubmissionResponse)
        seen, hidden = second.submission.results[0].progress
        assert (seen.test, seen.verdict, seen.message) == ("call", grade_pb2.TestResult.ACCEPTED, "fine")
        assert (hidden.test, hidden.message, hidden.output) == ("hidden-call", "", "")
        assert second.submission.state == pb.Submission.QUEUED
        assert (await get(it, made)).results == second.submission.results
        assert (await get(it, made, INSTRUCTOR)).results[0].progress[1].output == "secret output"

        it.storage.grade(key_of(made), "search", score=1, grade=code_grade().SerializeToString())
        graded = (await get(it, made)).results[0]
        assert graded.HasField("grade")
        assert not graded.progress
        call.cancel()


async def test_only_queues_whose_graders_tell_are_asked_about() -> None:
    queue = Asked()
    async with world(queue=queue) as it:
        made = await submitted(it)
        await get(it, made)
        assert {task.queue for task in queue.asked} == {"code-python", "code-cpp", "custom-verse"}
        queue.asked.clear()
        await it.assignments.CreateAssignment(
            assignments_pb.CreateAssignmentRequest(
                parent=COURSE,
                assignment=assignments_pb.Assignment(items=[llm_item()]),
                assignment_id="b",
            ),
            metadata=INSTRUCTOR,
        )
        essay = pb.Submission(answers=code_answers()[2:3])
        request = pb.CreateSubmissionRequest(parent=f"{COURSE}/assignments/b", submission=essay)
        await get(it, await it.submissions.CreateSubmission(request, metadata=STUDENT))
        await it.submissions.ListSubmissions(pb.ListSubmissionsRequest(parent=PARENT), metadata=STUDENT)
        assert queue.asked == []


@pytest.mark.parametrize("failure", [DependencyUnavailable("scheduler"), None])
async def test_nobody_waits_long_for_progress(failure: Exception | None) -> None:
    queue = Asked()
    queue.failure, queue.silent = failure, failure is None
    async with world(queue=queue, progress_wait_seconds=0.05) as it:
        made = await submitted(it)
        shown = await get(it, made)
        assert queue.asked
        assert [result.state for result in shown.results] == [pb.ItemResult.QUEUED] * 4
