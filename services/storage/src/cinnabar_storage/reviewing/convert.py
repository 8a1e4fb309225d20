"""Reviews, from requests to the domain and back."""

from __future__ import annotations

import math

from cinnabar.storage.v1 import review_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage import convert, responses
from cinnabar_storage.checks import limit_of, require
from cinnabar_storage.records import Micros, SubmissionKey
from cinnabar_storage.reviewing.overrides import AuditPage, SealCheck
from cinnabar_storage.reviewing.records import GradingQuery, Gradings, Override
from cinnabar_storage.trail.audit import BEFORE_THE_FIRST, AuditCursor, AuditEvent, AuditPosition, SealLink


def _key(given: storage_service_pb2.SubmissionKey) -> SubmissionKey:
    require(given, ("tenant", "submission_id"), "submission.")
    return SubmissionKey(given.tenant, given.submission_id)


def override(request: pb.OverrideGradeRequest) -> Override:
    """A grade by a person. What is in it is the caller's to check."""
    require(request, ("item_id", "actor", "reason"))
    if not math.isfinite(request.score):
        raise InvalidRequest([FieldViolation("score", "must be finite")])
    return Override(
        _key(request.submission),
        request.item_id,
        request.score,
        request.grade,
        request.actor,
        request.reason,
        request.etag,
        request.revision_id,
    )


def grading_query(request: pb.ListGradingsRequest) -> GradingQuery:
    """Which grades."""
    return GradingQuery(
        _key(request.submission),
        request.shadows,
        request.after_item_id,
        request.after_generation,
        limit_of(request.limit, convert.MAX_PAGE),
    )


def gradings(page: Gradings) -> pb.ListGradingsResponse:
    """A part of the history."""
    return pb.ListGradingsResponse(
        gradings=[
            pb.GradingRecord(grade=responses.grade(grading.grade), current=grading.current)
            for grading in page.gradings
        ],
        more=page.more,
    )


def audit_query(request: pb.ListAuditEventsRequest) -> tuple[SubmissionKey, AuditCursor | None, int]:
    """Which events."""
    after: AuditCursor | None = None
    if request.HasField("after"):
        given = request.after
        if not 0 <= given.time_us <= convert.MAX_TIME:
            raise InvalidRequest([FieldViolation("after.time_us", "must not be before 1970 nor after 9999")])
        after = AuditCursor(Micros(given.time_us), given.audit_id, given.shard)
    return _key(request.submission), after, limit_of(request.limit, convert.MAX_PAGE)


def audit_events(page: AuditPage) -> pb.ListAuditEventsResponse:
    """A part of the audit of a submission."""
    return pb.ListAuditEventsResponse(
        events=[_event(cursor, event) for cursor, event in page.events], more=page.more
    )


def _event(cursor: AuditCursor, event: AuditEvent) -> pb.AuditEventRecord:
    return pb.AuditEventRecord(
        cursor=pb.AuditCursor(time_us=cursor.at, audit_id=cursor.audit_id, shard=cursor.shard),
        time=responses.timestamp(event.at),
        actor=event.actor,
        action=event.action,
        item_id=event.item_id,
        generation=event.generation,
        detail=event.detail,
        sealed=event.sealed,
    )


def seal_link(request: pb.CheckSealsRequest) -> SealLink:
    """Where to go on."""
    if not request.HasField("after"):
        return BEFORE_THE_FIRST
    given = request.after
    return SealLink(given.seal, AuditPosition(given.last_xid, given.last_audit_id), given.hash)


def seal_check(check: SealCheck) -> pb.CheckSealsResponse:
    """What some seals say."""
    seals = check.page.seals
    return pb.CheckSealsResponse(
        seals=len(seals),
        events=sum(one.found_events for one in seals),
        redacted=sum(one.redacted for one in seals),
        breaks=[pb.CheckSealsResponse.Break(seal=one.seal, problem=one.problem) for one in check.breaks],
        link=pb.SealLink(
            seal=check.link.seal,
            last_xid=check.link.last.xid,
            last_audit_id=check.link.last.audit_id,
            hash=check.link.hash,
        ),
        more=check.page.more,
        unsealed=check.page.unsealed,
    )
