"""Which dead letters a request means: its filter, checked, and as the parameters of a page token."""

from __future__ import annotations

from collections.abc import Iterator

from cinnabar.gateway.v1.operations_service_pb2 import ListDeadLettersRequest
from cinnabar_common.errors import FieldViolation
from cinnabar_common.names import ID_RULE, AssignmentName, CourseName, is_id
from cinnabar_gateway import grading_times
from cinnabar_gateway.records import DeadLetterFilter

MAX_REASON = 256
_PARENT_RULE = "must be courses/{course} or courses/{course}/assignments/{assignment}"
_REASON_RULE = f"must be at most {MAX_REASON} printable characters"


def violations(request: ListDeadLettersRequest, at: str = "") -> Iterator[FieldViolation]:
    """Every rule that the filter breaks, with paths below ``at``."""
    prefix = f"{at}." if at else ""
    if request.queue and not is_id(request.queue):
        yield FieldViolation(f"{prefix}queue", ID_RULE)
    if request.parent and _scope(request.parent) is None:
        yield FieldViolation(f"{prefix}parent", _PARENT_RULE)
    if len(request.reason) > MAX_REASON or not request.reason.isprintable():
        yield FieldViolation(f"{prefix}reason", _REASON_RULE)
    sound = True
    for field in ("given_up_after", "given_up_before"):
        if request.HasField(field) and not grading_times.is_time(getattr(request, field)):
            sound = False
            yield FieldViolation(f"{prefix}{field}", grading_times.TIME_RULE)
    both = request.HasField("given_up_after") and request.HasField("given_up_before")
    if sound and both and request.given_up_before.ToMicroseconds() <= request.given_up_after.ToMicroseconds():
        yield FieldViolation(f"{prefix}given_up_before", "must be after given_up_after")


def wanted(request: ListDeadLettersRequest) -> DeadLetterFilter:
    """The filter of a request without violations."""
    course, assignment = _scope(request.parent) or ("", "")
    return DeadLetterFilter(
        queue=request.queue,
        course=course,
        assignment=assignment,
        reason=request.reason,
        given_up_after_us=(
            request.given_up_after.ToMicroseconds() if request.HasField("given_up_after") else None
        ),
        given_up_before_us=(
            request.given_up_before.ToMicroseconds() if request.HasField("given_up_before") else None
        ),
    )


def parameters(request: ListDeadLettersRequest) -> tuple[str, ...]:
    """What a page token is bound to."""
    asked = wanted(request)
    times = (asked.given_up_after_us, asked.given_up_before_us)
    return (asked.queue, request.parent, asked.reason, *map(str, times))


def _scope(parent: str) -> tuple[str, str] | None:
    """(course, assignment), the latter "" for a whole course; None when it is neither."""
    if (name := AssignmentName.parse(parent)) is not None:
        return name.course, name.assignment
    if (course := CourseName.parse(parent)) is not None:
        return course.course, ""
    return None
