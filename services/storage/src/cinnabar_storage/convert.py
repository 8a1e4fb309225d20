"""From requests to the domain, and what a request must be. Raises InvalidRequest.

The plural requests check with one expression per item and look for the field
to blame only when it fails: these loops run for every submission there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.storage.v1 import records_pb2, revision_service_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1 import position_pb2
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import id_bucket
from cinnabar_storage.checks import limit_of as _limit
from cinnabar_storage.checks import require as _require
from cinnabar_storage.records import (
    AssignmentKey,
    AssignmentQuery,
    DeadLetterQuery,
    Doubt,
    GivenUp,
    Graded,
    Lsn,
    Micros,
    NewRevision,
    NewSubmission,
    NewTask,
    Outcome,
    OwnedTaskKey,
    Place,
    Position,
    QueueControl,
    RevisionKey,
    RevisionQuery,
    SubmissionKey,
    SubmissionQuery,
    TaskKey,
)

MAX_WRITES = 10_000
MAX_OPEN_TASKS = 10_000
MAX_TASK_KEYS = 10_000
MAX_KEYS = 1_000
MAX_PAGE = 1_000
# Postgres indexes rows of up to 2,704 bytes (a third of a page); 600 characters are 2,400 at most.
MAX_ID_CHARACTERS = 600
# The end of 9999, where a google.protobuf.Timestamp ends: what is stored must be possible to answer with.
MAX_TIME = 253_402_300_800_000_000 - 1

_REQUIRED_OF_SUBMISSION = (
    "submission_id",
    "tenant",
    "course",
    "assignment",
    "revision_id",
    "author",
    "answers",
    "tasks",
)
_TIME_RULE = "must be after 1970 and before 10000"
_REQUIRED_OF_OUTCOME = ("tenant", "submission_id", "item_id", "generation", "fence", "lease_token", "worker")


def _at_most(field: str, count: int, limit: int) -> None:
    if count > limit:
        raise InvalidRequest([FieldViolation(field, f"must not have more than {limit} elements")])


def new_submissions(request: pb.CreateSubmissionsRequest) -> list[NewSubmission]:
    """The rows of a create."""
    _at_most("submissions", len(request.submissions), MAX_WRITES)
    rows: list[NewSubmission] = []
    for index, given in enumerate(request.submissions):
        if given.existing_only:
            rows.append(_sought(given, index))
            continue
        row = NewSubmission(
            given.submission_id,
            given.tenant,
            given.course,
            given.assignment,
            given.revision_id,
            given.author,
            given.request_id or None,
            given.fingerprint,
            given.priority,
            given.answers,
            given.max_score,
            _micros(given.create_time),
            tuple([NewTask(task.item_id, task.queue) for task in given.tasks]),
            _micros(given.grade_after) if given.HasField("grade_after") else None,
            _micros(given.grade_by) if given.HasField("grade_by") else None,
            upload_ids=tuple(given.upload_ids) if given.upload_ids else (),
        )
        if not (
            row.submission_id
            and row.tenant
            and row.course
            and row.assignment
            and row.revision_id
            and row.author
            and row.answers
            and 0 < row.create_time <= MAX_TIME
            and (row.grade_after is None or 0 < row.grade_after <= MAX_TIME)
            and (row.grade_by is None or 0 < row.grade_by <= MAX_TIME)
            and row.tasks
            and math.isfinite(row.max_score)
        ):
            raise _blame_submission(given, index)
        tasks = row.tasks
        ids = "".join((*row[:6], given.request_id, *tasks[0]))
        if row.upload_ids:
            _check_uploads(row.upload_ids, index)
        if len(tasks) > 1:
            if len({task[0] for task in tasks}) < len(tasks):
                raise _violation(index, "tasks", "must not name an item twice")
            ids += "".join([text for task in tasks[1:] for text in task])
        if "\0" in ids:
            raise _violation(index, "", "ids must not contain U+0000")
        if len(ids) > MAX_ID_CHARACTERS and _too_long(row):
            raise _violation(
                index, "", f"ids must not have more than {MAX_ID_CHARACTERS} characters together"
            )
        rows.append(row)
    return rows


def _check_uploads(uploads: tuple[str, ...], index: int) -> None:
    if len(set(uploads)) < len(uploads):
        raise _violation(index, "upload_ids", "must not name an upload twice")
    if any(id_bucket(upload_id) is None for upload_id in uploads):
        raise _violation(index, "upload_ids", "must be ids of uploads")


def _micros(time: Timestamp) -> Micros:
    return Micros(time.seconds * 1_000_000 + time.nanos // 1000)


def _blame_submission(given: pb.NewSubmission, index: int) -> InvalidRequest:
    _require(given, _REQUIRED_OF_SUBMISSION, f"submissions[{index}].")
    times = {"create_time": given.create_time}
    times |= {name: time for name in ("grade_after", "grade_by") if (time := _time_if(given, name))}
    for name, time in times.items():
        if not 0 < _micros(time) <= MAX_TIME:
            return _violation(index, name, _TIME_RULE)
    return _violation(index, "max_score", "must be finite")


def _time_if(message: Message, name: str) -> Timestamp | None:
    return getattr(message, name) if message.HasField(name) else None


def _sought(given: pb.NewSubmission, index: int) -> NewSubmission:
    """A row that is only looked for, by its request id."""
    _require(given, ("tenant", "author", "request_id"), f"submissions[{index}].")
    row = NewSubmission(
        *(given.submission_id, given.tenant, given.course, given.assignment, given.revision_id),
        *(given.author, given.request_id, given.fingerprint, given.priority, given.answers),
        *(given.max_score, Micros(0), ()),
        existing_only=True,
    )
    ids = "".join((*row[:6], given.request_id))
    if "\0" in ids:
        raise _violation(index, "", "ids must not contain U+0000")
    if len(ids) > MAX_ID_CHARACTERS:
        raise _violation(index, "", f"ids must not have more than {MAX_ID_CHARACTERS} characters together")
    return row


def _violation(index: int, field: str, rule: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field, rule).under(f"submissions[{index}]")])


def _too_long(row: NewSubmission) -> bool:
    own = "".join((*row[:6], row.request_id or ""))
    items = max(len(item_id) + len(queue) for item_id, queue in row.tasks)
    return max(len(own), items) > MAX_ID_CHARACTERS


def outcomes(request: pb.CommitOutcomesRequest) -> list[Outcome]:
    """The outcomes of a commit."""
    _at_most("outcomes", len(request.outcomes), MAX_WRITES)
    converted: list[Outcome] = []
    for index, given in enumerate(request.outcomes):
        fenced = (
            given.tenant,
            given.submission_id,
            given.item_id,
            given.generation,
            given.fence,
            given.lease_token,
            given.worker,
        )
        if not all(fenced):
            _require(given, _REQUIRED_OF_OUTCOME, f"outcomes[{index}].")
        match given.WhichOneof("outcome"):
            case "grade":
                grade = given.grade
                doubt = _doubt(grade) if grade.needs_review else None
                converted.append(Graded(*fenced, grade.score, grade.grade, doubt, grade.upgradable))
            case "dead_letter":
                # The reason is an error's text, from anywhere: it must not be what fails the batch.
                reason = given.dead_letter.reason.replace("\0", "")
                converted.append(GivenUp(*fenced, reason, given.dead_letter.attempts))
            case _:
                raise InvalidRequest([FieldViolation(f"outcomes[{index}].outcome", "is required")])
    return converted


def _doubt(grade: pb.FencedOutcome.Grade) -> Doubt:
    # Texts of a grader, who may be anybody's: they must not be what fails the batch.
    return Doubt(tuple([flag.replace("\0", "") for flag in grade.flags]), grade.max_score)


def new_revision(given: records_pb2.AssignmentRecord) -> NewRevision:
    """The content of a create or update; its times are the server's to set."""
    _require(given, ("tenant", "course", "assignment", "revision_id"), "assignment.")
    return NewRevision(given.tenant, given.course, given.assignment, given.revision_id, given.spec)


def positions(given: Sequence[position_pb2.Position]) -> list[Position]:
    """What a read must show."""
    _at_most("min_positions", len(given), MAX_KEYS)
    return [Position(position.shard, Lsn(position.lsn), position.epoch) for position in given]


def submission_keys(given: Sequence[pb.SubmissionKey]) -> list[SubmissionKey]:
    """Submissions to read or cancel."""
    _at_most("submissions", len(given), MAX_KEYS)
    return [SubmissionKey(key.tenant, key.submission_id) for key in given]


def cancel(request: pb.CancelSubmissionsRequest) -> tuple[list[SubmissionKey], str]:
    """Which submissions, and who asks."""
    _require(request, ("actor",))
    return submission_keys(request.submissions), request.actor


def redrive(request: pb.RedriveTasksRequest) -> tuple[str, list[TaskKey], str, Place]:
    """Whose tasks, which, who asks, and where they must be."""
    _require(request, ("tenant", "actor"))
    _at_most("tasks", len(request.tasks), MAX_KEYS)
    return (
        request.tenant,
        [TaskKey(task.submission_id, task.item_id) for task in request.tasks],
        request.actor,
        Place(request.course, request.assignment),
    )


def assignment_keys(request: pb.GetAssignmentsRequest) -> list[AssignmentKey]:
    """Assignments to read."""
    _at_most("keys", len(request.keys), MAX_KEYS)
    return [AssignmentKey(key.tenant, key.course, key.assignment, key.revision_id) for key in request.keys]


def revision_keys(request: pb.GetRevisionsRequest) -> list[RevisionKey]:
    """Revisions to read."""
    _at_most("revisions", len(request.revisions), MAX_KEYS)
    return [RevisionKey(key.tenant, key.revision_id) for key in request.revisions]


def assignment_query(request: pb.ListAssignmentsRequest) -> AssignmentQuery:
    """Which assignments to list."""
    _require(request, ("tenant", "course"))
    return AssignmentQuery(request.tenant, request.course, request.after, _limit(request.limit, MAX_PAGE))


def revision_query(request: revision_service_pb2.ListRevisionsRequest) -> RevisionQuery:
    """Which revisions of an assignment to list."""
    _require(request, ("tenant", "course", "assignment"))
    return RevisionQuery(
        request.tenant,
        request.course,
        request.assignment,
        request.before,
        _limit(request.limit, MAX_PAGE),
    )


def submission_query(request: pb.ListSubmissionsRequest) -> SubmissionQuery:
    """Which submissions to list."""
    _require(request, ("tenant", "course", "assignment"))
    return SubmissionQuery(
        request.tenant,
        request.course,
        request.assignment,
        request.author,
        request.before,
        _limit(request.limit, MAX_PAGE),
    )


def open_tasks_after(request: pb.ListOpenTasksRequest) -> tuple[TaskKey, int]:
    """Where to go on, and how far."""
    after = TaskKey(request.after_submission_id, request.after_item_id)
    return after, _limit(request.limit, MAX_OPEN_TASKS)


def dead_letter_query(request: pb.ListDeadLettersRequest) -> DeadLetterQuery:
    """Which dead letters to list."""
    _require(request, ("tenant",))
    return DeadLetterQuery(
        request.tenant,
        request.queue,
        TaskKey(request.after_submission_id, request.after_item_id),
        _limit(request.limit, MAX_PAGE),
        request.course,
        request.assignment,
        request.reason,
        _bound(request, "given_up_after"),
        _bound(request, "given_up_before"),
    )


def _bound(request: pb.ListDeadLettersRequest, name: str) -> Micros | None:
    time = _time_if(request, name)
    if time is None:
        return None
    if not 0 <= _micros(time) <= MAX_TIME:
        raise InvalidRequest([FieldViolation(name, "must not be before 1970 nor after 9999")])
    return _micros(time)


def owned_task_keys(request: pb.GetTaskStatesRequest) -> list[OwnedTaskKey]:
    """Tasks to look up."""
    _at_most("keys", len(request.keys), MAX_TASK_KEYS)
    return [OwnedTaskKey(key.tenant, key.submission_id, key.item_id) for key in request.keys]


def queue_control(request: pb.SetQueueControlRequest) -> QueueControl:
    """What an operator wants of a queue. Which states there are is the scheduler's to know."""
    given = request.control
    _require(given, ("queue", "state", "actor"), "control.")
    if given.state < 0:
        raise InvalidRequest([FieldViolation("control.state", "must not be negative")])
    if len(given.queue) > MAX_ID_CHARACTERS:
        raise InvalidRequest(
            [FieldViolation("control.queue", f"must not have more than {MAX_ID_CHARACTERS} characters")]
        )
    return QueueControl(given.queue, given.state, given.actor)
