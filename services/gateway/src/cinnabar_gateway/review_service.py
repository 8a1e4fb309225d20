"""Overrides and histories, from requests to the domain and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade, Provenance
from cinnabar_common import pagination
from cinnabar_common.errors import FieldViolation, InvalidRequest, PageTokenInvalid
from cinnabar_common.names import ID_RULE, is_id
from cinnabar_common.queues import queue_of
from cinnabar_gateway import convert, records
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.histories import Histories
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.overrides import Overrides, Wanted
from cinnabar_gateway.required import missing
from cinnabar_gateway.review_records import AuditCursor, AuditEvent, AuditVerdict, Grading, ItemFacts

MAX_FEEDBACK_BYTES = 16 * 1024
MAX_REASON = 1000
MAX_ETAG = 128
_PERSON = Provenance(grader="person", version="1")
_CRITERION = "override"


def items_of(revision: records.Assignment) -> dict[str, ItemFacts]:
    """The items of a revision by id."""
    return {
        item.item: ItemFacts(item.points, queue_of(item))
        for item in Assignment.FromString(revision.spec).items
    }


class ReviewCalls:
    """What SubmissionService and OperationsService do about reviews. They have opened the call."""

    def __init__(self, overrides: Overrides, histories: Histories) -> None:
        self._overrides = overrides
        self._histories = histories

    async def override(
        self, caller: Identity, request: pb.OverrideGradeRequest, asked: Positions
    ) -> tuple[pb.Submission, Positions]:
        """The submission after it, and where to read it."""
        caller.require("grades.override", Role.INSTRUCTOR)
        if violations := list(_violations(request)):
            raise InvalidRequest(violations)
        wanted = Wanted(
            item=request.item,
            score=request.score,
            grade=partial(_grade, request.score, request.feedback),
            reason=request.reason,
            etag=request.etag,
        )
        name = convert.submission_name(request.name, "name")
        after, positions = await self._overrides.override(caller, name, wanted, asked)
        return convert.submission(after, caller.role), positions

    async def gradings(
        self, caller: Identity, request: pb.ListGradingsRequest, asked: Positions
    ) -> pb.ListGradingsResponse:
        """A page of the history of grades."""
        name = convert.submission_name(request.parent, "parent")
        limit = pagination.page_size(request.page_size)
        parameters = ("gradings", caller.tenant, request.parent, str(caller.role is Role.STUDENT))
        cursor = pagination.decode_token(request.page_token, *parameters)
        submission, page = await self._histories.gradings(
            caller, name, after=_grading_cursor(cursor), limit=limit, min_positions=asked
        )
        last = page.gradings[-1].grade if page.more else None
        return pb.ListGradingsResponse(
            gradings=[_grading(one, submission, caller.role) for one in page.gradings],
            next_page_token=(
                pagination.encode_token(f"{last.item}:{last.generation}", *parameters) if last else ""
            ),
        )

    async def audit(
        self, caller: Identity, request: pb.ListAuditEventsRequest, asked: Positions
    ) -> pb.ListAuditEventsResponse:
        """A page of what was done to a submission."""
        caller.require("audit.list", Role.INSTRUCTOR)
        name = convert.submission_name(request.parent, "parent")
        limit = pagination.page_size(request.page_size)
        parameters = ("audit", caller.tenant, request.parent)
        cursor = pagination.decode_token(request.page_token, *parameters)
        page = await self._histories.audit(
            caller, name, after=_audit_cursor(cursor), limit=limit, min_positions=asked
        )
        last = page.events[-1].cursor if page.more else None
        return pb.ListAuditEventsResponse(
            events=map(_event, page.events),
            next_page_token=(
                pagination.encode_token(f"{last.time_us}:{last.audit_id}:{last.shard}", *parameters)
                if last
                else ""
            ),
        )

    async def verify(self) -> operations_pb.VerifyAuditResponse:
        """What all seals say."""
        return _verdict(await self._histories.verify())


def _violations(request: pb.OverrideGradeRequest) -> Iterator[FieldViolation]:
    yield from missing(request)
    if request.item and not is_id(request.item):
        yield FieldViolation("item", ID_RULE)
    if not math.isfinite(request.score) or request.score < 0:
        yield FieldViolation("score", "must be 0 to the points of the item")
    if len(request.feedback.encode()) > MAX_FEEDBACK_BYTES:
        yield FieldViolation("feedback", f"must be at most {MAX_FEEDBACK_BYTES} bytes of UTF-8")
    if len(request.reason) > MAX_REASON:
        yield FieldViolation("reason", f"must be 1 to {MAX_REASON} characters")
    if len(request.etag) > MAX_ETAG:
        yield FieldViolation("etag", f"must be at most {MAX_ETAG} characters")
    for field in ("feedback", "reason", "etag"):
        if "\0" in getattr(request, field):
            yield FieldViolation(field, "must not contain U+0000")


def _grade(score: float, feedback: str, points: float) -> bytes:
    part = CriterionScore(
        criterion=_CRITERION, score=score, max_score=points, provenance=_PERSON, confidence=1.0
    )
    return Grade(score=score, max_score=points, criteria=[part], feedback=feedback).SerializeToString(
        deterministic=True
    )


def _grading(one: Grading, submission: records.Submission, role: Role) -> pb.Grading:
    student = role is Role.STUDENT
    return pb.Grading(
        item=one.grade.item,
        generation=one.grade.generation,
        kind=pb.Grading.Kind.Value(one.kind.name),
        grade=convert.grade(one.grade.grade, role),
        actor="" if student else one.actor,
        reason="" if student else one.reason,
        revision_id=one.grade.revision_id or submission.revision_id,
        regrade=f"{submission.parent}/regrades/{one.regrade_id}" if one.regrade_id else "",
        create_time=convert.timestamp(one.grade.create_time_us),
        current=one.current,
    )


def _grading_cursor(text: str) -> tuple[str, int]:
    if not text:
        return "", 0
    item, _, generation = text.partition(":")
    if not is_id(item) or not _is_number(generation, 2**31):
        raise PageTokenInvalid
    return item, int(generation)


def _audit_cursor(text: str) -> AuditCursor | None:
    if not text:
        return None
    parts = text.split(":")
    if len(parts) != 3 or not all(map(_is_number, parts, (2**53, 2**63, 2**31))):
        raise PageTokenInvalid
    return AuditCursor(*map(int, parts))


def _is_number(text: str, end: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) < end


def _event(one: AuditEvent) -> pb.AuditEvent:
    return pb.AuditEvent(
        time=convert.timestamp(one.cursor.time_us),
        actor=one.actor,
        action=one.action,
        item=one.item,
        generation=one.generation,
        detail=one.detail,
        sealed=one.sealed,
    )


def _verdict(verdict: AuditVerdict) -> operations_pb.VerifyAuditResponse:
    return operations_pb.VerifyAuditResponse(
        seals=verdict.seals,
        events=verdict.events,
        unsealed=verdict.unsealed,
        redacted=verdict.redacted,
        breaks=[
            operations_pb.VerifyAuditResponse.Break(shard=shard, seal=seal, problem=problem)
            for shard, seal, problem in verdict.breaks
        ],
        heads=verdict.heads,
    )
