"""The storage service, as the domain's store of grades that wait for a person."""

from __future__ import annotations

import grpc

from cinnabar.storage.v1 import storage_service_pb2
from cinnabar.storage.v1 import waiting_review_service_pb2 as pb
from cinnabar.storage.v1.waiting_review_service_pb2_grpc import (
    WaitingReviewReaderServiceStub,
    WaitingReviewWriterServiceStub,
)
from cinnabar_common.errors import from_rpc_error
from cinnabar_common.names import SubmissionName
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.adapters.review_client import meant
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.waiting_review_records import (
    Acceptance,
    AcceptedReview,
    ReviewCursor,
    ReviewPage,
    ReviewScope,
    WaitingReview,
)

_DEPENDENCY = "storage"


class WaitingReviewClient:
    """Implements the port WaitingReviewStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._writer = WaitingReviewWriterServiceStub(channel)
        self._reader = WaitingReviewReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def list_reviews(
        self,
        tenant: str,
        scope: ReviewScope,
        *,
        after: ReviewCursor | None,
        limit: int,
        min_positions: Positions,
    ) -> ReviewPage:
        """See WaitingReviewStore."""
        request = pb.ListWaitingReviewsRequest(
            tenant=tenant,
            course=scope.course,
            assignment=scope.assignment,
            flag=scope.flag,
            limit=limit,
            min_positions=messages.position_messages(min_positions),
        )
        if after is not None:
            request.after.CopyFrom(
                pb.WaitingReviewCursor(
                    time_us=after.time_us, submission_id=after.submission_id, item_id=after.item
                )
            )
        try:
            response = await self._reader.ListWaitingReviews(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, _DEPENDENCY) from error
        return ReviewPage(tuple(map(_review, response.reviews)), response.more, tuple(response.unreachable))

    async def accept_review(self, acceptance: Acceptance) -> AcceptedReview:
        """See WaitingReviewStore."""
        key = acceptance.key
        request = pb.AcceptReviewRequest(
            submission=storage_service_pb2.SubmissionKey(tenant=key.tenant, submission_id=key.submission_id),
            item_id=acceptance.item,
            course=acceptance.course,
            assignment=acceptance.assignment,
            actor=acceptance.actor,
            comment=acceptance.comment,
            etag=acceptance.etag,
        )
        try:
            response = await self._writer.AcceptReview(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise meant(from_rpc_error(error, _DEPENDENCY), key.submission_id) from error
        return AcceptedReview(
            _review(response.review), messages.grade(response.grade), (messages.position(response.position),)
        )


def _review(message: pb.WaitingReviewRecord) -> WaitingReview:
    return WaitingReview(
        submission=SubmissionName(message.course, message.assignment, message.submission_id),
        item=message.item_id,
        generation=message.generation,
        author=message.author,
        flags=tuple(message.flags),
        score=message.score,
        max_score=message.max_score,
        create_time_us=message.create_time.ToMicroseconds(),
    )
