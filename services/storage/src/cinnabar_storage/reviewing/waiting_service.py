"""Speaks gRPC about grades that wait for a person: convert, one call, convert."""

from __future__ import annotations

from typing import Any

import grpc

from cinnabar.storage.v1 import waiting_review_service_pb2 as pb
from cinnabar.storage.v1 import waiting_review_service_pb2_grpc as rpc
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage import convert, responses
from cinnabar_storage.checks import limit_of, require
from cinnabar_storage.records import Micros, SubmissionKey
from cinnabar_storage.reviewing.waiting import WaitingReviews
from cinnabar_storage.reviewing.waiting_records import (
    FROM_THE_OLDEST,
    Acceptance,
    ReviewCursor,
    ReviewQuery,
    WaitingReview,
)

Context = grpc.aio.ServicerContext[Any, Any]


class WaitingReviewWriter(rpc.WaitingReviewWriterServiceServicer):
    """What ends a review without a new grade."""

    def __init__(self, reviews: WaitingReviews) -> None:
        self._reviews = reviews

    async def AcceptReview(
        self, request: pb.AcceptReviewRequest, context: Context
    ) -> pb.AcceptReviewResponse:
        accepted, position = await self._reviews.accept(_acceptance(request))
        return pb.AcceptReviewResponse(
            review=_review(accepted.review),
            grade=responses.grade(accepted.grade),
            position=responses.position(position),
        )


class WaitingReviewReader(rpc.WaitingReviewReaderServiceServicer):
    """The reviews that wait."""

    def __init__(self, reviews: WaitingReviews) -> None:
        self._reviews = reviews

    async def ListWaitingReviews(
        self, request: pb.ListWaitingReviewsRequest, context: Context
    ) -> pb.ListWaitingReviewsResponse:
        page = await self._reviews.list(_query(request), convert.positions(request.min_positions))
        return pb.ListWaitingReviewsResponse(
            reviews=map(_review, page.reviews), more=page.more, unreachable=page.unreachable
        )


def _acceptance(request: pb.AcceptReviewRequest) -> Acceptance:
    require(request.submission, ("tenant", "submission_id"), "submission.")
    require(request, ("item_id", "course", "assignment", "actor"))
    key = SubmissionKey(request.submission.tenant, request.submission.submission_id)
    return Acceptance(
        *(key, request.item_id, request.course, request.assignment),
        *(request.actor, request.comment, request.etag),
    )


def _query(request: pb.ListWaitingReviewsRequest) -> ReviewQuery:
    require(request, ("tenant",))
    if request.assignment and not request.course:
        raise InvalidRequest([FieldViolation("course", "is required with an assignment")])
    after = FROM_THE_OLDEST
    if request.HasField("after"):
        given = request.after
        if not 0 <= given.time_us <= convert.MAX_TIME:
            raise InvalidRequest([FieldViolation("after.time_us", "must be of 1970 to 9999")])
        after = ReviewCursor(Micros(given.time_us), given.submission_id, given.item_id)
    return ReviewQuery(
        *(request.tenant, request.course, request.assignment, request.flag),
        after,
        limit_of(request.limit, convert.MAX_PAGE),
    )


def _review(given: WaitingReview) -> pb.WaitingReviewRecord:
    return pb.WaitingReviewRecord(
        submission_id=given.submission_id,
        item_id=given.item_id,
        course=given.course,
        assignment=given.assignment,
        author=given.author,
        generation=given.generation,
        flags=given.flags,
        score=given.score,
        max_score=given.max_score,
        create_time=responses.timestamp(given.create_time),
    )
