"""Storage's messages to and from the domain's records."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.grader.v1.grade_pb2 import AnswerSet
from cinnabar.storage.v1 import records_pb2, storage_service_pb2
from cinnabar.type.v1 import position_pb2
from cinnabar_common.names import AssignmentName, SubmissionName, task_id
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.records import (
    Assignment,
    DeadLetter,
    Fate,
    Grade,
    NewSubmission,
    QueuedTask,
    RedriveFate,
    Submission,
    Task,
    TaskState,
)

_TASK_STATES = {
    records_pb2.TaskRecord.State.OPEN: TaskState.OPEN,
    records_pb2.TaskRecord.State.DEAD_LETTERED: TaskState.DEAD_LETTERED,
    records_pb2.TaskRecord.State.CANCELLED: TaskState.CANCELLED,
}
_STATUS = storage_service_pb2.CreateSubmissionsResponse.Result.Status
FATES = {
    _STATUS.CREATED: Fate.CREATED,
    _STATUS.DUPLICATE: Fate.DUPLICATE,
    _STATUS.CONFLICT: Fate.CONFLICT,
    _STATUS.UNAVAILABLE: Fate.UNAVAILABLE,
    _STATUS.ABSENT: Fate.ABSENT,
    _STATUS.UPLOAD_REFUSED: Fate.UPLOAD_REFUSED,
}
_REDRIVE = storage_service_pb2.RedriveTasksResponse.Result
REDRIVE_FATES = {
    _REDRIVE.REDRIVEN: RedriveFate.REDRIVEN,
    _REDRIVE.NOT_DEAD_OPEN: RedriveFate.OPEN,
    _REDRIVE.NOT_DEAD_CANCELLED: RedriveFate.CANCELLED,
    _REDRIVE.NOT_DEAD_GRADED: RedriveFate.GRADED,
    _REDRIVE.NOT_FOUND: RedriveFate.NOT_FOUND,
    _REDRIVE.UNAVAILABLE: RedriveFate.UNAVAILABLE,
}


def timestamp(time_us: int) -> Timestamp:
    """A time in µs since 1970-01-01 UTC."""
    seconds, rest = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def position(message: position_pb2.Position) -> Position:
    """Where something can be read."""
    return Position(message.shard, message.lsn, message.epoch)


def positions(messages: Iterable[position_pb2.Position]) -> Positions:
    """Where things can be read."""
    return tuple(map(position, messages))


def position_messages(wanted: Positions) -> list[position_pb2.Position]:
    """What a read must show."""
    return [position_pb2.Position(shard=one.shard, lsn=one.lsn, epoch=one.epoch) for one in wanted]


def assignment(message: records_pb2.AssignmentRecord) -> Assignment:
    """An assignment as stored."""
    return Assignment(
        tenant=message.tenant,
        name=AssignmentName(message.course, message.assignment),
        revision_id=message.revision_id,
        spec=message.spec,
        create_time_us=message.create_time.ToMicroseconds(),
        update_time_us=message.update_time.ToMicroseconds(),
    )


def assignment_message(one: Assignment) -> records_pb2.AssignmentRecord:
    """An assignment to store; storage sets the times."""
    return records_pb2.AssignmentRecord(
        tenant=one.tenant,
        course=one.name.course,
        assignment=one.name.assignment,
        revision_id=one.revision_id,
        spec=one.spec,
    )


def new_submission_message(new: NewSubmission) -> storage_service_pb2.NewSubmission:
    """A submission to store."""
    seconds, rest = divmod(new.create_time_us, 1_000_000)
    message = storage_service_pb2.NewSubmission(
        submission_id=new.submission_id,
        tenant=new.tenant,
        course=new.name.course,
        assignment=new.name.assignment,
        revision_id=new.revision_id,
        author=new.author,
        request_id=new.request_id,
        fingerprint=new.fingerprint,
        priority=new.priority,
        answers=new.answers,
        max_score=new.max_score,
        create_time=Timestamp(seconds=seconds, nanos=rest * 1000),
    )
    if new.grade_after_us is not None:
        message.grade_after.CopyFrom(timestamp(new.grade_after_us))
    if new.grade_by_us is not None:
        message.grade_by.CopyFrom(timestamp(new.grade_by_us))
    if new.refusal is not None:
        message.existing_only = True
    if new.files:
        message.upload_ids.extend([name.upload for _, name in new.files])
    for plan, _ in new.tasks:
        message.tasks.add(item_id=plan.item, queue=plan.queue)
    return message


def submission(message: records_pb2.SubmissionRecord) -> Submission:
    """A submission as stored."""
    return Submission(
        submission_id=message.submission_id,
        tenant=message.tenant,
        parent=AssignmentName(message.course, message.assignment),
        revision_id=message.revision_id,
        author=message.author,
        priority=message.priority,
        answers=message.answers,
        max_score=message.max_score,
        create_time_us=message.create_time.ToMicroseconds(),
        tasks=tuple(map(_task, message.tasks)),
        grades=tuple(map(grade, message.grades)),
        grade_after_us=message.grade_after.ToMicroseconds() if message.HasField("grade_after") else None,
        grade_by_us=message.grade_by.ToMicroseconds() if message.HasField("grade_by") else None,
        etag=message.etag,
    )


def dead_letter(message: storage_service_pb2.DeadLetterRecord) -> DeadLetter:
    """A task that was given up."""
    return DeadLetter(
        submission=SubmissionName(message.course, message.assignment, message.task.submission_id),
        task=_task(message.task),
    )


def queued_task(message: storage_service_pb2.OpenTask) -> QueuedTask:
    """An open task as the queue takes it."""
    answers = AnswerSet.FromString(message.answers).answers
    mine = next((answer for answer in answers if answer.item == message.item_id), None)
    return QueuedTask(
        task=task_id(message.submission_id, message.item_id),
        tenant=message.tenant,
        queue=message.queue,
        generation=message.generation,
        priority=message.priority,
        item_key=f"{message.revision_id}/{message.item_id}",
        answer=mine.SerializeToString() if mine is not None else b"",
        not_before_us=message.grade_after.ToMicroseconds() if message.HasField("grade_after") else None,
        grade_by_us=message.grade_by.ToMicroseconds() if message.HasField("grade_by") else None,
        upgrade=message.upgrade,
    )


def _task(message: records_pb2.TaskRecord) -> Task:
    return Task(
        item=message.item_id,
        queue=message.queue,
        generation=message.generation,
        state=_TASK_STATES[message.state],
        update_time_us=message.update_time.ToMicroseconds(),
        reason=message.reason,
        attempts=message.attempts,
    )


def grade(message: records_pb2.GradeRecord) -> Grade:
    """A grade as stored."""
    return Grade(
        item=message.item_id,
        generation=message.generation,
        score=message.score,
        grade=message.grade,
        overridden=message.kind == records_pb2.GradeRecord.Kind.OVERRIDDEN,
        revision_id=message.revision_id,
        create_time_us=message.create_time.ToMicroseconds(),
    )
