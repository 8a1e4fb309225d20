"""Requests about regrades to the domain, and back. Raises InvalidRequest."""

from __future__ import annotations

import math
from collections.abc import Iterable

from google.protobuf.message import Message

from cinnabar.storage.v1 import regrade_service_pb2 as pb
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage import responses
from cinnabar_storage.records import Micros
from cinnabar_storage.regrading.campaigns import Advance
from cinnabar_storage.regrading.records import (
    Regrade,
    RegradeFilter,
    RegradeKey,
    RegradeQuery,
    RegradeView,
    Reopening,
    Wanted,
)
from cinnabar_storage.regrading.report import Report

MAX_LIMIT = 1000
MAX_CLAIMS = 100
_OF_REGRADE = ("regrade_id", "tenant", "course", "assignment", "reason", "actor", "priority")


def _require(message: Message, names: Iterable[str], path: str = "") -> None:
    if missing := [name for name in names if not getattr(message, name)]:
        raise InvalidRequest([FieldViolation(path + name, "is required") for name in missing])


def _limit(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise InvalidRequest([FieldViolation("limit", f"must be 1 to {most}")])
    return limit


def new_regrade(request: pb.CreateRegradeRequest) -> Regrade:
    """The regrade of a create."""
    given = request.regrade
    _require(given, _OF_REGRADE, "regrade.")
    wanted = given.filter
    return Regrade(
        regrade_id=given.regrade_id,
        tenant=given.tenant,
        course=given.course,
        assignment=given.assignment,
        filter=RegradeFilter(
            tuple(wanted.authors),
            tuple(wanted.items),
            Micros(wanted.created_after.ToMicroseconds()) if wanted.HasField("created_after") else None,
            Micros(wanted.created_before.ToMicroseconds()) if wanted.HasField("created_before") else None,
            wanted.score_below if wanted.HasField("score_below") else None,
        ),
        revision_id=given.revision_id,
        shadow=given.shadow,
        reason=given.reason,
        actor=given.actor,
        priority=given.priority,
    )


def key(request: pb.GetRegradeRequest | pb.GetRegradeReportRequest | pb.DecideRegradeRequest) -> RegradeKey:
    """Which regrade."""
    _require(request, ("tenant", "regrade_id", "course", "assignment"))
    return RegradeKey(request.tenant, request.regrade_id)


def parent(
    request: pb.GetRegradeRequest | pb.GetRegradeReportRequest | pb.DecideRegradeRequest,
) -> tuple[str, str]:
    """The (course, assignment) that it must be of."""
    return request.course, request.assignment


def query(request: pb.ListRegradesRequest) -> RegradeQuery:
    """Which regrades to list."""
    _require(request, ("tenant", "course", "assignment"))
    limit = _limit(request.limit, MAX_LIMIT)
    return RegradeQuery(request.tenant, request.course, request.assignment, request.before, limit)


def decision(request: pb.DecideRegradeRequest) -> tuple[Wanted, str]:
    """What to do, and who asked."""
    _require(request, ("decision", "actor"))
    known = {int(Wanted.PROMOTE): Wanted.PROMOTE, int(Wanted.DISCARD): Wanted.DISCARD}
    if request.decision not in known:
        raise InvalidRequest([FieldViolation("decision", "is not known")])
    return known[request.decision], request.actor


def advance(request: pb.AdvanceRegradeRequest) -> tuple[RegradeKey, int]:
    """Which regrade to advance, and by how much."""
    _require(request, ("tenant", "regrade_id"))
    return RegradeKey(request.tenant, request.regrade_id), _limit(request.limit, MAX_LIMIT)


def claims(request: pb.ClaimRegradesRequest) -> int:
    """How many to claim."""
    return _limit(request.limit, MAX_CLAIMS)


def reopening(request: pb.RegradeSubmissionRequest) -> Reopening:
    """Items of one submission."""
    _require(request, ("tenant", "submission_id", "reason", "actor", "priority"))
    return Reopening(
        *(request.tenant, request.submission_id, tuple(request.items), request.revision_id),
        *(request.reason, request.actor, request.priority, request.etag),
    )


def pass_share(request: pb.GetRegradeReportRequest) -> float:
    """From which share of its points an item is passed."""
    if not (math.isfinite(request.pass_share) and 0 < request.pass_share <= 1):
        raise InvalidRequest([FieldViolation("pass_share", "must be above 0 and at most 1")])
    return request.pass_share


def view(given: RegradeView) -> pb.RegradeRecord:
    """A regrade with its counts."""
    regrade, tally = given.regrade, given.tally
    wanted = regrade.filter
    record = pb.RegradeRecord(
        regrade_id=regrade.regrade_id,
        tenant=regrade.tenant,
        course=regrade.course,
        assignment=regrade.assignment,
        filter=pb.RegradeFilter(authors=wanted.authors, items=wanted.items, score_below=wanted.score_below),
        revision_id=regrade.revision_id,
        shadow=regrade.shadow,
        reason=regrade.reason,
        actor=regrade.actor,
        priority=regrade.priority,
        create_time=responses.timestamp(regrade.create_time),
        state=pb.RegradeRecord.State.Value(given.state.name),
        opened=tally.opened,
        graded=tally.graded,
        failed=given.failed,
        skipped=tally.skipped,
        promoted=tally.promoted,
        overtaken=tally.overtaken,
        busy=regrade.busy,
    )
    if wanted.created_after is not None:
        record.filter.created_after.CopyFrom(responses.timestamp(wanted.created_after))
    if wanted.created_before is not None:
        record.filter.created_before.CopyFrom(responses.timestamp(wanted.created_before))
    return record


def advanced(given: Advance) -> pb.AdvanceRegradeResponse:
    """What one round of steps did."""
    return pb.AdvanceRegradeResponse(
        opened=map(responses.open_task, given.opened),
        cancelled=[
            pb.AdvanceRegradeResponse.Cancelled(
                submission_id=one.submission_id, item_id=one.item_id, queue=one.queue
            )
            for one in given.cancelled
        ],
        busy=given.busy,
    )


def report(given: Report) -> pb.GetRegradeReportResponse:
    """What a regrade changes."""
    return pb.GetRegradeReportResponse(
        compared=given.compared,
        unchanged=given.unchanged,
        raised=given.raised,
        lowered=given.lowered,
        failed_to_passed=given.failed_to_passed,
        passed_to_failed=given.passed_to_failed,
        deltas=[
            pb.GetRegradeReportResponse.CriterionDelta(
                item=item,
                criterion=criterion,
                compared=delta.compared,
                mean_delta=delta.mean,
                rms_delta=delta.rms,
                histogram=delta.histogram,
            )
            for item, criterion, delta in given.deltas
        ],
        largest=[
            pb.GetRegradeReportResponse.Change(
                submission_id=change.submission_id,
                item=change.item,
                old_score=change.old_score,
                new_score=change.new_score,
                max_score=change.max_score,
            )
            for change in given.largest
        ],
    )
