"""From the domain to responses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1 import position_pb2
from cinnabar_storage.etags import etag_of
from cinnabar_storage.records import (
    Assignment,
    CommitResult,
    Created,
    CreateStatus,
    DeadLetter,
    Grade,
    GradeKind,
    Micros,
    OpenTask,
    Position,
    QueueControl,
    RedriveResult,
    Submission,
    SubmissionKey,
    Task,
    TaskCounts,
    TaskState,
)

_Status = pb.CreateSubmissionsResponse.Result.Status
_STATUSES: dict[CreateStatus, _Status.ValueType] = {
    status: _Status.Value(status.name) for status in CreateStatus
}
_Result = pb.CommitOutcomesResponse.Result
_RESULTS: dict[CommitResult, _Result.ValueType] = {
    result: _Result.Value(result.name) for result in CommitResult
}
_Redriven = pb.RedriveTasksResponse.Result
_REDRIVEN: dict[RedriveResult, _Redriven.ValueType] = {
    result: _Redriven.Value(result.name) for result in RedriveResult
}
_State = records_pb2.TaskRecord.State
_STATES: dict[int, _State.ValueType] = {int(state): _State.Value(state.name) for state in TaskState}
_Kind = records_pb2.GradeRecord.Kind
_KINDS: dict[int, _Kind.ValueType] = {int(kind): _Kind.Value(kind.name) for kind in GradeKind}


def timestamp(time: Micros) -> Timestamp:
    """The same moment as a proto."""
    seconds, rest = divmod(time, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def _timestamp_if(time: Micros | None) -> Timestamp | None:
    return None if time is None else timestamp(time)


def position(given: Position) -> position_pb2.Position:
    """A position in a shard's log."""
    return position_pb2.Position(shard=given.shard, lsn=given.lsn, epoch=given.epoch)


def created(results: Sequence[Created], positions: Iterable[Position]) -> pb.CreateSubmissionsResponse:
    """What became of new submissions."""
    response = pb.CreateSubmissionsResponse(positions=map(position, positions))
    add = response.results.add
    for status, submission_id in results:
        add(status=_STATUSES[status], submission_id=submission_id)
    return response


def commit_results(results: Iterable[CommitResult]) -> Iterable[_Result.ValueType]:
    """What became of outcomes."""
    return [_RESULTS[result] for result in results]


def redrive_results(results: Iterable[RedriveResult]) -> Iterable[_Redriven.ValueType]:
    """What became of tasks to redrive."""
    return [_REDRIVEN[result] for result in results]


def task_states(open_generations: Iterable[int | None]) -> pb.GetTaskStatesResponse:
    """Where tasks are; None is "not known"."""
    response = pb.GetTaskStatesResponse()
    add = response.states.add
    for generation in open_generations:
        add(open_generation=generation or 0, unavailable=generation is None)
    return response


def task_counts(given: TaskCounts) -> pb.CountTasksResponse:
    """Where the tasks of a shard are."""
    return pb.CountTasksResponse(
        accepted=given.accepted,
        open=given.open,
        dead_lettered=given.dead_lettered,
        cancelled=given.cancelled,
        graded=given.graded,
    )


def queue_control(given: QueueControl) -> pb.QueueControl:
    """What an operator wants of a queue."""
    return pb.QueueControl(queue=given.queue, state=given.state, actor=given.actor)


def submission_key(given: SubmissionKey) -> pb.SubmissionKey:
    """A submission of a tenant."""
    return pb.SubmissionKey(tenant=given.tenant, submission_id=given.submission_id)


def task(given: Task) -> records_pb2.TaskRecord:
    """A task without a grade."""
    return records_pb2.TaskRecord(
        submission_id=given.submission_id,
        item_id=given.item_id,
        queue=given.queue,
        generation=given.generation,
        state=_STATES[given.state],
        reason=given.reason,
        attempts=given.attempts,
        update_time=timestamp(given.update_time),
        regrade_id=given.regrade_id,
        shadow=given.shadow,
    )


def grade(given: Grade) -> records_pb2.GradeRecord:
    """A grade."""
    return records_pb2.GradeRecord(
        submission_id=given.submission_id,
        item_id=given.item_id,
        generation=given.generation,
        score=given.score,
        grade=given.grade,
        create_time=timestamp(given.create_time),
        kind=_KINDS[given.kind],
        actor=given.actor,
        reason=given.reason,
        revision_id=given.revision_id,
        regrade_id=given.regrade_id,
    )


def submission(given: Submission) -> records_pb2.SubmissionRecord:
    """A submission with what became of it."""
    row = given.row
    return records_pb2.SubmissionRecord(
        submission_id=row.submission_id,
        tenant=row.tenant,
        course=row.course,
        assignment=row.assignment,
        revision_id=row.revision_id,
        author=row.author,
        priority=row.priority,
        answers=row.answers,
        max_score=row.max_score,
        create_time=timestamp(row.create_time),
        tasks=map(task, given.tasks),
        grades=map(grade, given.grades),
        grade_after=_timestamp_if(row.grade_after),
        grade_by=_timestamp_if(row.grade_by),
        etag=etag_of(given),
    )


def assignment(given: Assignment) -> records_pb2.AssignmentRecord:
    """An assignment in one of its revisions."""
    return records_pb2.AssignmentRecord(
        tenant=given.tenant,
        course=given.course,
        assignment=given.assignment,
        revision_id=given.revision_id,
        spec=given.spec,
        create_time=timestamp(given.create_time),
        update_time=timestamp(given.update_time),
    )


def encoded_submissions(*encoded: bytes | None) -> list[records_pb2.SubmissionRecord]:
    """Those that are there, from their encoding."""
    return [records_pb2.SubmissionRecord.FromString(one) for one in encoded if one is not None]


def encoded_assignments(*encoded: bytes | None) -> list[records_pb2.AssignmentRecord]:
    """Those that are there, from their encoding."""
    return [records_pb2.AssignmentRecord.FromString(one) for one in encoded if one is not None]


def open_task(given: OpenTask) -> pb.OpenTask:
    """An open task for the queue."""
    return pb.OpenTask(
        submission_id=given.submission_id,
        item_id=given.item_id,
        tenant=given.tenant,
        queue=given.queue,
        generation=given.generation,
        priority=given.priority,
        revision_id=given.revision_id,
        answers=given.answers,
        create_time=timestamp(given.create_time),
        grade_after=_timestamp_if(given.grade_after),
        grade_by=_timestamp_if(given.grade_by),
        upgrade=given.upgrade,
    )


def dead_letter(given: DeadLetter) -> pb.DeadLetterRecord:
    """A dead letter and where it belongs."""
    return pb.DeadLetterRecord(task=task(given.task), course=given.course, assignment=given.assignment)
