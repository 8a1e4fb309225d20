"""Public messages of regrades to and from the domain, and what a request must be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cinnabar.gateway.v1 import regrade_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2 import RegradeSubmissionRequest
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, RegradeName, is_id
from cinnabar_gateway import grading_times
from cinnabar_gateway.convert import timestamp
from cinnabar_gateway.regrade_ports import Regrade, RegradeFilter, RegradeReport, RegradeState
from cinnabar_gateway.required import REQUIRED_RULE, missing

MAX_REASON = 1000
MAX_NAMED = 1000
DEFAULT_PASS_SHARE = 0.5
_NAME_RULE = "must be courses/{course}/assignments/{assignment}/regrades/{regrade}"
_SHARE_RULE = "must be 0 to 1"
_STATES = {state: pb.Regrade.State.Value(state.name) for state in RegradeState}


def name(text: str) -> RegradeName:
    """Parses the field "name". InvalidRequest."""
    parsed = RegradeName.parse(text)
    if parsed is None:
        raise InvalidRequest([FieldViolation("name", _NAME_RULE if text else REQUIRED_RULE)])
    return parsed


def check_create(request: pb.CreateRegradeRequest) -> None:
    """Raises InvalidRequest with every rule that the request breaks, but for its parent."""
    regrade, given = request.regrade, request.regrade.filter
    violations = list(missing(request))
    violations += _reason(regrade.reason, "regrade.reason")
    violations += _ids(given.authors, "regrade.filter.authors")
    violations += _ids(given.items, "regrade.filter.items")
    sound = True
    for field in ("created_after", "created_before"):
        if given.HasField(field) and not grading_times.is_time(getattr(given, field)):
            sound = False
            violations.append(FieldViolation(f"regrade.filter.{field}", grading_times.TIME_RULE))
    both = given.HasField("created_after") and given.HasField("created_before")
    if sound and both and given.created_before.ToMicroseconds() <= given.created_after.ToMicroseconds():
        violations.append(FieldViolation("regrade.filter.created_before", "must be after created_after"))
    if given.HasField("score_below") and not _is_share(given.score_below):
        violations.append(FieldViolation("regrade.filter.score_below", _SHARE_RULE))
    if violations:
        raise InvalidRequest(violations)


def check_reopen(request: RegradeSubmissionRequest) -> None:
    """Raises InvalidRequest with every rule that the request breaks, but for its name."""
    violations = list(missing(request))
    violations += _reason(request.reason, "reason")
    violations += _ids(request.items, "items")
    if violations:
        raise InvalidRequest(violations)


def pass_share(given: float) -> float:
    """From which share of its points an item is passed. InvalidRequest."""
    if not _is_share(given):
        raise InvalidRequest([FieldViolation("pass_share", _SHARE_RULE)])
    return given or DEFAULT_PASS_SHARE


def _is_share(given: float) -> bool:
    return math.isfinite(given) and 0 <= given <= 1


def _reason(text: str, field: str) -> Iterator[FieldViolation]:
    if len(text) > MAX_REASON:
        yield FieldViolation(field, f"must be 1 to {MAX_REASON} characters")
    elif "\0" in text:
        yield FieldViolation(field, "must not contain U+0000")


def _ids(given: Sequence[str], field: str) -> Iterator[FieldViolation]:
    if len(given) > MAX_NAMED:
        yield FieldViolation(field, f"must not name more than {MAX_NAMED}")
    for index, one in enumerate(given):
        if not is_id(one):
            yield FieldViolation(f"{field}[{index}]", ID_RULE)


def wanted(given: pb.Regrade.Filter) -> RegradeFilter:
    """The filter of a request without violations."""
    return RegradeFilter(
        authors=tuple(given.authors),
        items=tuple(given.items),
        created_after_us=given.created_after.ToMicroseconds() if given.HasField("created_after") else None,
        created_before_us=given.created_before.ToMicroseconds() if given.HasField("created_before") else None,
        score_below=given.score_below if given.HasField("score_below") else None,
    )


def regrade(stored: Regrade) -> pb.Regrade:
    """A regrade as it is now."""
    given = stored.filter
    message = pb.Regrade(
        name=str(stored.name),
        filter=pb.Regrade.Filter(authors=given.authors, items=given.items, score_below=given.score_below),
        revision_id=stored.revision_id,
        shadow=stored.shadow,
        reason=stored.reason,
        state=_STATES[stored.state],
        actor=stored.actor,
        opened=stored.opened,
        graded=stored.graded,
        failed=stored.failed,
        skipped=stored.skipped,
        promoted=stored.promoted,
        overtaken=stored.overtaken,
        create_time=timestamp(stored.create_time_us),
    )
    if given.created_after_us is not None:
        message.filter.created_after.CopyFrom(timestamp(given.created_after_us))
    if given.created_before_us is not None:
        message.filter.created_before.CopyFrom(timestamp(given.created_before_us))
    return message


def report(of: RegradeName, found: RegradeReport) -> pb.RegradeReport:
    """What a regrade changes."""
    return pb.RegradeReport(
        name=str(of),
        compared=found.compared,
        unchanged=found.unchanged,
        raised=found.raised,
        lowered=found.lowered,
        failed_to_passed=found.failed_to_passed,
        passed_to_failed=found.passed_to_failed,
        deltas=[
            pb.RegradeReport.CriterionDelta(
                item=delta.item,
                criterion=delta.criterion,
                compared=delta.compared,
                mean_delta=delta.mean_delta,
                rms_delta=delta.rms_delta,
                histogram=delta.histogram,
            )
            for delta in found.deltas
        ],
        largest=[
            pb.RegradeReport.Change(
                submission=str(change.submission),
                item=change.item,
                old_score=change.old_score,
                new_score=change.new_score,
                max_score=change.max_score,
            )
            for change in found.largest
        ],
    )
