"""Public messages of statistics and erasures."""

from __future__ import annotations

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, AssignmentName, is_id
from cinnabar_gateway.convert import timestamp
from cinnabar_gateway.data_ports import Erasure, Scores
from cinnabar_gateway.required import REQUIRED_RULE
from cinnabar_gateway.statistics import AssignmentStatistics

MAX_REASON = 1000
_PREFIX = "erasures/"


def statistics(name: AssignmentName, given: AssignmentStatistics) -> assignments_pb.AssignmentStatistics:
    """The grades of an assignment, in numbers."""
    return assignments_pb.AssignmentStatistics(
        name=str(name),
        submissions=None if given.submissions is None else _scores(given.submissions),
        items=[
            assignments_pb.ItemStatistics(
                item=item.item,
                scores=_scores(item),
                criteria=[
                    assignments_pb.CriterionStatistics(criterion=one.criterion, scores=_scores(one))
                    for one in criteria
                ],
            )
            for item, criteria in given.items
        ],
        as_of_time=timestamp(given.found.as_of_us),
        unreachable=[f"shards/{shard}" for shard in given.found.unreachable],
    )


def _scores(given: Scores) -> assignments_pb.ScoreStatistics:
    return assignments_pb.ScoreStatistics(
        count=given.count,
        mean=given.mean,
        standard_deviation=given.standard_deviation,
        histogram=given.histogram,
    )


def erase_request(request: operations_pb.EraseStudentRequest) -> tuple[str, str]:
    """Whom, and why. InvalidRequest."""
    violations: list[FieldViolation] = []
    if not is_id(request.student):
        violations.append(FieldViolation("student", ID_RULE if request.student else REQUIRED_RULE))
    if not 1 <= len(request.reason) <= MAX_REASON:
        rule = f"must be 1 to {MAX_REASON} characters" if request.reason else REQUIRED_RULE
        violations.append(FieldViolation("reason", rule))
    elif "\0" in request.reason:
        violations.append(FieldViolation("reason", "must not contain U+0000"))
    elif is_id(request.student) and request.student in request.reason:
        violations.append(FieldViolation("reason", "must not name the student: it stays in the proof"))
    if violations:
        raise InvalidRequest(violations)
    return request.student, request.reason


def erasure_id(name: str) -> str:
    """The id in the name of an erasure. InvalidRequest."""
    inner = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or not is_id(inner):
        raise InvalidRequest(
            [FieldViolation("name", "must be erasures/{erasure}" if name else REQUIRED_RULE)]
        )
    return inner


def erasure(given: Erasure) -> operations_pb.Erasure:
    """The proof of an erasure, or how far it is."""
    done = given.complete_time_us is not None
    return operations_pb.Erasure(
        name=f"{_PREFIX}{given.erasure_id}",
        state=operations_pb.Erasure.ERASED if done else operations_pb.Erasure.ERASING,
        subject=given.subject,
        actor=given.actor,
        reason=given.reason,
        submissions=given.submissions,
        grades=given.grades,
        objects=given.objects,
        redacted_events=given.redacted_events,
        create_time=timestamp(given.create_time_us),
        complete_time=None if given.complete_time_us is None else timestamp(given.complete_time_us),
    )
