"""Public messages from what the domain knows, and the simple checks of requests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import (
    CreateSubmissionResult,
    GradingEstimate,
    ItemResult,
    Submission,
)
from cinnabar.grader.v1.grade_pb2 import AnswerSet, Grade
from cinnabar_common.errors import FieldViolation, InvalidRequest, SuiteError
from cinnabar_common.names import AssignmentName, CourseName, SubmissionName
from cinnabar_gateway import records
from cinnabar_gateway.assignments import etag_of
from cinnabar_gateway.identity import Role
from cinnabar_gateway.operations import Verdict
from cinnabar_gateway.records import NewSubmission, WaitEstimate
from cinnabar_gateway.required import REQUIRED_RULE
from cinnabar_gateway.submissions import Outcome, fresh, progress_of, state_of
from cinnabar_gateway.visibility import strip_answers, strip_grade

_STATES = {state: Submission.State.Value(state.name) for state in records.SubmissionState}
_ITEM_STATES = {state: ItemResult.State.Value(state.name) for state in records.ItemState}
_QUEUE_STATES = {state: operations_pb.Queue.State.Value(state.name) for state in records.QueueState}
_OPEN = (records.ItemState.QUEUED, records.ItemState.REGRADING)
_QUEUED = Submission.State.QUEUED
_COURSE_RULE = "must be courses/{course}"
_ASSIGNMENT_RULE = "must be courses/{course}/assignments/{assignment}"
_SUBMISSION_RULE = "must be courses/{course}/assignments/{assignment}/submissions/{submission}"


def course_name(text: str, field: str) -> CourseName:
    """Parses the name in ``field``. InvalidRequest."""
    return CourseName.parse(text) or _malformed(text, field, _COURSE_RULE)


def assignment_name(text: str, field: str) -> AssignmentName:
    """Parses the name in ``field``. InvalidRequest."""
    return AssignmentName.parse(text) or _malformed(text, field, _ASSIGNMENT_RULE)


def submission_name(text: str, field: str) -> SubmissionName:
    """Parses the name in ``field``. InvalidRequest."""
    return SubmissionName.parse(text) or _malformed(text, field, _SUBMISSION_RULE)


def _malformed(text: str, field: str, rule: str) -> NoReturn:
    raise InvalidRequest([FieldViolation(field, rule if text else REQUIRED_RULE)])


def shard_name(index: int) -> str:
    """How a shard is called in answers that lack its part."""
    return f"shards/{index}"


def timestamp(time_us: int) -> Timestamp:
    """A time in µs since 1970-01-01 UTC."""
    seconds, rest = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def duration(seconds: float) -> Duration:
    """A duration, to the µs."""
    whole = Duration()
    whole.FromMicroseconds(round(seconds * 1e6))
    return whole


def assignment(stored: records.Assignment, role: Role) -> Assignment:
    """The assignment as ``role`` may see it: a student sees nothing that gives an answer away."""
    message = Assignment.FromString(stored.spec)
    if role is Role.STUDENT:
        strip_answers(message)
    message.name = str(stored.name)
    message.revision_id = stored.revision_id
    message.etag = etag_of(stored.revision_id)
    message.create_time.CopyFrom(timestamp(stored.create_time_us))
    message.update_time.CopyFrom(timestamp(stored.update_time_us))
    return message


def submission(stored: records.Submission, role: Role) -> Submission:
    """The submission as ``role`` may see it, with what is known of each item, in the order of the answers."""
    answers = AnswerSet.FromString(stored.answers).answers
    progress = progress_of(stored)
    message = Submission(
        name=str(stored.name),
        author=stored.author,
        answers=answers,
        priority=Submission.Priority.ValueType(stored.priority),
        revision_id=stored.revision_id,
        state=_STATES[state_of(list(progress.values()))],
        score=sum(item.grade.score for item in progress.values() if item.grade),
        max_score=stored.max_score,
        create_time=timestamp(stored.create_time_us),
        update_time=timestamp(stored.update_time_us),
        grade_after=timestamp(stored.grade_after_us) if stored.grade_after_us is not None else None,
        grade_by=timestamp(stored.grade_by_us) if stored.grade_by_us is not None else None,
        etag=stored.etag,
    )
    for answer in answers:
        item = progress.get(answer.item)
        if item is None:
            continue
        message.results.add(
            item=answer.item,
            state=_ITEM_STATES[item.state],
            grade=grade(item.grade.grade, role) if item.grade else None,
            generation=item.generation,
            overridden=item.grade is not None and item.grade.overridden,
            progress=(
                grade(stored.progress[answer.item], role).tests
                if answer.item in stored.progress and item.state in _OPEN
                else ()
            ),
        )
    return message


def grade(encoded: bytes, role: Role) -> Grade:
    """A grade as ``role`` may see it."""
    message = Grade.FromString(encoded)
    if role is Role.STUDENT and message.tests:
        strip_grade(message)
    return message


def created(outcome: NewSubmission | records.Submission, role: Role) -> Submission:
    """What a create answers: the submission in full, with its estimate when it is new."""
    if not isinstance(outcome, NewSubmission):
        message = submission(outcome, role)
        message.ClearField("etag")  # creating it again must answer what creating it did
        return message
    message = submission(fresh(outcome), role)
    if outcome.estimate is not None:
        message.estimate.CopyFrom(_estimate(outcome.estimate))
    return message


@lru_cache(maxsize=64)  # all of a batch have the same one
def _estimate(estimate: WaitEstimate) -> GradingEstimate:
    return GradingEstimate(
        position=estimate.position,
        p50=duration(estimate.p50_seconds),
        p90=duration(estimate.p90_seconds),
    )


def create_result(outcome: Outcome) -> CreateSubmissionResult:
    """The short form that batches answer with."""
    if isinstance(outcome, NewSubmission):
        seconds, rest = divmod(outcome.create_time_us, 1_000_000)
        result = CreateSubmissionResult()
        message = result.submission
        message.name = f"{outcome.name}/submissions/{outcome.submission_id}"
        message.author = outcome.author
        message.revision_id = outcome.revision_id
        message.state = _QUEUED
        message.max_score = outcome.max_score
        message.create_time.seconds = seconds
        message.create_time.nanos = rest * 1000
        if outcome.estimate is not None:
            message.estimate.CopyFrom(_estimate(outcome.estimate))
        return result
    if isinstance(outcome, SuiteError):
        return CreateSubmissionResult(error=outcome.to_status())
    state = state_of(list(progress_of(outcome).values()))
    return CreateSubmissionResult(
        submission=Submission(
            name=str(outcome.name),
            author=outcome.author,
            revision_id=outcome.revision_id,
            state=_STATES[state],
            max_score=outcome.max_score,
            create_time=timestamp(outcome.create_time_us),
        )
    )


def queue(counts: records.QueueCounts) -> operations_pb.Queue:
    """The state of one queue."""
    return operations_pb.Queue(
        queue=counts.queue,
        ready=counts.ready,
        delayed=counts.delayed,
        leased=counts.leased,
        oldest_age=duration(counts.oldest_age_seconds),
        workers=counts.workers,
        state=_QUEUE_STATES[counts.state],
        credits=counts.credits,
        service_p50=_maybe(counts.service_p50_seconds),
        service_p90=_maybe(counts.service_p90_seconds),
        predicted_work=_maybe(counts.predicted_work_seconds),
    )


def _maybe(seconds: float | None) -> Duration | None:
    return duration(seconds) if seconds is not None else None


def conservation(counted: records.Conservation) -> operations_pb.Conservation:
    """Where every accepted task is."""
    return operations_pb.Conservation(
        accepted=counted.accepted,
        open=counted.open,
        dead_lettered=counted.dead_lettered,
        cancelled=counted.cancelled,
        graded=counted.graded,
        queued=counted.queued,
        waiting=counted.waiting,
        leased=counted.leased,
        balanced=counted.balanced,
        missing=counted.missing,
        orphaned=counted.orphaned,
        sweep_time=timestamp(counted.sweep_time_us) if counted.sweep_time_us is not None else None,
    )


def dead_letter(stored: records.DeadLetter) -> operations_pb.DeadLetter:
    """A task that was given up."""
    return operations_pb.DeadLetter(
        submission=str(stored.submission),
        item=stored.task.item,
        queue=stored.task.queue,
        generation=stored.task.generation,
        attempts=stored.task.attempts,
        reason=stored.task.reason,
        create_time=timestamp(stored.task.update_time_us),
    )


def health_report(verdicts: Sequence[Verdict], now_us: int) -> operations_pb.HealthReport:
    """All checks, and whether all of them passed."""
    return operations_pb.HealthReport(
        status=_health(all(verdict.healthy for verdict in verdicts)),
        checks=[
            operations_pb.HealthCheck(
                name=verdict.name,
                status=_health(verdict.healthy),
                latency=duration(verdict.latency_seconds),
            )
            for verdict in verdicts
        ],
        timestamp=timestamp(now_us),
    )


def _health(healthy: bool) -> str:
    return "healthy" if healthy else "unhealthy"
