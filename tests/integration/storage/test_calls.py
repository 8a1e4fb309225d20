"""Every call, through gRPC, on Postgres."""

from __future__ import annotations

import grpc
import pytest

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1 import position_pb2
from cinnabar_local import sql
from tests.support.storage_records import (
    ASSIGNMENT,
    COURSE,
    TENANT,
    given_up,
    graded,
    key,
    new_submission,
    revision_id,
)
from tests.support.storage_service import Storage
from tests.support.storage_sql import total

Status = pb.CreateSubmissionsResponse.Result.Status
Result = pb.CommitOutcomesResponse.Result
State = records_pb2.TaskRecord.State


async def test_a_submission_is_created_graded_and_read(storage: Storage) -> None:
    submission = new_submission(items=("q1", "q2"))
    created = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    assert [(result.status, result.submission_id) for result in created.results] == [
        (Status.CREATED, submission.submission_id)
    ]
    committed = await storage.writer.CommitOutcomes(
        pb.CommitOutcomesRequest(outcomes=[graded(submission, score=1.5)])
    )
    assert committed.results == [Result.COMMITTED]
    read = await storage.reader.GetSubmissions(
        pb.GetSubmissionsRequest(submissions=[key(submission)], min_positions=committed.positions)
    )
    [record] = read.submissions
    assert record.tenant == TENANT
    assert record.author == submission.author
    assert record.answers == submission.answers
    assert record.max_score == submission.max_score
    assert record.create_time == submission.create_time
    assert [(task.item_id, task.state, task.generation, task.queue) for task in record.tasks] == [
        ("q2", State.OPEN, 1, "text")
    ]
    assert [(grade.item_id, grade.score, grade.grade) for grade in record.grades] == [
        ("q1", 1.5, b"grade under 1")
    ]
    assert abs(record.grades[0].create_time.seconds - submission.create_time.seconds) < 60


async def test_dead_letters_are_listed_and_redriven(storage: Storage) -> None:
    submission = new_submission(tenant="dead")
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[given_up(submission, fence=7)]))
    listed = await storage.reader.ListDeadLetters(pb.ListDeadLettersRequest(tenant="dead", limit=10))
    [letter] = listed.dead_letters
    assert (letter.course, letter.assignment) == (COURSE, ASSIGNMENT)
    assert (letter.task.reason, letter.task.attempts) == ("it broke", 4)
    opened = await storage.writer.RedriveTasks(
        pb.RedriveTasksRequest(
            tenant="dead",
            tasks=[pb.RedriveTasksRequest.Task(submission_id=submission.submission_id, item_id="q1")],
            actor="operator-1",
        )
    )
    assert opened.results == [pb.RedriveTasksResponse.Result.REDRIVEN]
    [task] = opened.tasks
    assert (task.submission_id, task.answers) == (submission.submission_id, submission.answers)
    listed = await storage.reader.ListDeadLetters(pb.ListDeadLettersRequest(tenant="dead", limit=10))
    assert not listed.dead_letters


async def test_an_assignment_is_created_updated_and_read(storage: Storage) -> None:
    first = records_pb2.AssignmentRecord(
        tenant=TENANT, course=COURSE, assignment="hw1", revision_id=revision_id(), spec=b"one"
    )
    created = await storage.writer.CreateAssignment(pb.CreateAssignmentRequest(assignment=first))
    second = records_pb2.AssignmentRecord(
        tenant=TENANT, course=COURSE, assignment="hw1", revision_id=revision_id(), spec=b"two"
    )
    updated = await storage.writer.UpdateAssignment(
        pb.UpdateAssignmentRequest(assignment=second, expected_revision_id=first.revision_id)
    )
    assert updated.assignment.create_time == created.assignment.create_time
    found = await storage.reader.GetAssignments(
        pb.GetAssignmentsRequest(
            keys=[pb.GetAssignmentsRequest.Key(tenant=TENANT, course=COURSE, assignment="hw1")],
            min_positions=[updated.position],
        )
    )
    assert [record.spec for record in found.assignments] == [b"two"]
    listed = await storage.reader.ListAssignments(
        pb.ListAssignmentsRequest(tenant=TENANT, course=COURSE, limit=10, min_positions=[updated.position])
    )
    assert [record.assignment for record in listed.assignments] == ["hw1"]
    revisions = await storage.reader.GetRevisions(
        pb.GetRevisionsRequest(revisions=[pb.RevisionKey(tenant=TENANT, revision_id=first.revision_id)])
    )
    assert [record.spec for record in revisions.revisions] == [b"one"]


async def test_open_tasks_of_all_shards_are_listed(storage: Storage) -> None:
    submissions = [new_submission() for _ in range(20)]
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    shards = await storage.reader.ListShards(pb.ListShardsRequest())
    assert shards.shard_count == 2
    found: set[str] = set()
    for shard in range(shards.shard_count):
        after = ("", "")
        while True:
            page = await storage.reader.ListOpenTasks(
                pb.ListOpenTasksRequest(
                    shard=shard, after_submission_id=after[0], after_item_id=after[1], limit=7
                )
            )
            found |= {task.submission_id for task in page.tasks}
            if not page.more:
                break
            after = (page.tasks[-1].submission_id, page.tasks[-1].item_id)
    assert {submission.submission_id for submission in submissions} <= found


async def test_cancelling_returns_what_was_open(storage: Storage) -> None:
    submission = new_submission(items=("q1", "q2"))
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[graded(submission)]))
    request = pb.CancelSubmissionsRequest(submissions=[key(submission)], actor="student-1")
    cancelled = await storage.writer.CancelSubmissions(request)
    assert [(task.item_id, task.state) for task in cancelled.cancelled] == [("q2", State.CANCELLED)]
    assert not (await storage.writer.CancelSubmissions(request)).cancelled


async def test_times_go_the_whole_way(storage: Storage) -> None:
    submission = new_submission()
    submission.grade_after.FromMicroseconds(1_700_000_000_000_001)
    submission.grade_by.FromMicroseconds(4_000_000_000_000_001)
    created = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    read = await storage.reader.GetSubmissions(
        pb.GetSubmissionsRequest(submissions=[key(submission)], min_positions=created.positions)
    )
    [record] = read.submissions
    assert (record.grade_after, record.grade_by) == (submission.grade_after, submission.grade_by)
    await storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[given_up(submission)]))
    task = pb.RedriveTasksRequest.Task(submission_id=submission.submission_id, item_id="q1")
    redriven = await storage.writer.RedriveTasks(
        pb.RedriveTasksRequest(tenant=TENANT, tasks=[task], actor="operator-1")
    )
    assert (redriven.tasks[0].grade_after, redriven.tasks[0].grade_by) == (
        submission.grade_after,
        submission.grade_by,
    )


async def test_a_request_is_looked_for_without_storing(storage: Storage) -> None:
    sought = pb.NewSubmission(
        tenant=TENANT, author="seeker", request_id="r", fingerprint=b"f", existing_only=True
    )
    request = pb.CreateSubmissionsRequest(submissions=[sought])
    assert (await storage.writer.CreateSubmissions(request)).results[0].status == Status.ABSENT
    submission = new_submission(author="seeker", request_id="r", fingerprint=b"f")
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    [found] = (await storage.writer.CreateSubmissions(request)).results
    assert (found.status, found.submission_id) == (Status.DUPLICATE, submission.submission_id)
    sought.fingerprint = b"other"
    [found] = (
        await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[sought]))
    ).results
    assert (found.status, found.submission_id) == (Status.CONFLICT, submission.submission_id)


async def test_what_is_wanted_of_queues_is_kept_on_the_first_shard_and_audited(storage: Storage) -> None:
    async def want(state: int, actor: str) -> None:
        control = pb.QueueControl(queue="essays", state=state, actor=actor)
        await storage.writer.SetQueueControl(pb.SetQueueControlRequest(control=control))

    await want(2, "ann")
    await want(2, "ann")
    await want(1, "bob")
    listed = await storage.reader.ListQueueControls(pb.ListQueueControlsRequest())
    assert [control for control in listed.controls if control.queue == "essays"] == [
        pb.QueueControl(queue="essays", state=1, actor="bob")
    ]
    controls = "SELECT count(*) FROM queue_controls"
    assert await total(storage.shards[:1], controls) >= 1
    assert await total(storage.shards[1:], controls) == 0
    async with sql.connected(storage.shards[0].primary_url) as connection:
        rows = await connection.fetchval(
            "SELECT array_agg(concat_ws(' ', actor, detail) ORDER BY at)"
            " FROM audit WHERE action = 'queue-control' AND detail LIKE 'essays %'"
        )
    assert rows == ["ann essays 2", "bob essays 1"]


async def test_a_list_says_whether_there_are_more(storage: Storage) -> None:
    submissions = [new_submission(assignment="counted") for _ in range(3)]
    created = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=submissions))
    request = pb.ListSubmissionsRequest(
        tenant=TENANT, course=COURSE, assignment="counted", limit=2, min_positions=created.positions
    )
    page = await storage.reader.ListSubmissions(request)
    assert (len(page.submissions), page.more) == (2, True)
    request.before = page.submissions[-1].submission_id
    page = await storage.reader.ListSubmissions(request)
    assert (len(page.submissions), page.more) == (1, False)


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        (
            "GetSubmissions",
            pb.GetSubmissionsRequest(min_positions=[position_pb2.Position(shard=-1, lsn=1)]),
            "min_positions[0].shard",
        ),
        (
            "GetSubmissions",
            pb.GetSubmissionsRequest(min_positions=[position_pb2.Position(shard=0, lsn=-1)]),
            "min_positions[0].lsn",
        ),
        (
            "GetSubmissions",
            pb.GetSubmissionsRequest(submissions=[pb.SubmissionKey()] * 1001),
            "submissions",
        ),
        ("ListOpenTasks", pb.ListOpenTasksRequest(shard=2, limit=1), "shard"),
        ("CountTasks", pb.CountTasksRequest(shard=-1), "shard"),
        ("GetTaskStates", pb.GetTaskStatesRequest(keys=[pb.GetTaskStatesRequest.Key()] * 10_001), "keys"),
        ("ListOpenTasks", pb.ListOpenTasksRequest(shard=0, limit=0), "limit"),
        ("ListDeadLetters", pb.ListDeadLettersRequest(tenant="t", limit=1001), "limit"),
    ],
)
async def test_a_bad_read_is_refused(storage: Storage, call: str, request_: object, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(storage.reader, call)(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.value.details() or "").startswith(f"{field}: ")


async def test_a_position_that_nothing_has_reached_only_slows_the_read(storage: Storage) -> None:
    submission = new_submission()
    await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    read = await storage.reader.GetSubmissions(
        pb.GetSubmissionsRequest(
            submissions=[key(submission)],
            min_positions=[position_pb2.Position(shard=shard, lsn=2**62) for shard in range(2)],
        )
    )
    assert len(read.submissions) == 1
