"""Calls about grades that wait for a person."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from cinnabar.gateway.v1 import review_service_pb2 as pb
from cinnabar.gateway.v1.review_service_pb2_grpc import ReviewServiceStub
from cinnabar_client.connection import Connection
from cinnabar_client.pages import Page, pages

_PAGE_SIZE = 200
EVERYWHERE = "courses/-/assignments/-"
"""The parent of all reviews of the tenant."""


class WaitingReviewCalls:
    """The part of the client that these calls make up. Every method raises ApiError; instructors only."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    async def reviews(self, parent: str = EVERYWHERE, *, flag: str = "") -> AsyncGenerator[pb.Review]:
        """Grades that wait for a person, oldest first, without the grades themselves.

        ``parent`` is an assignment, "courses/{course}/assignments/-" or all. When shards could not be
        asked, what there is comes first, and then UNAVAILABLE with what is missing as
        ``metadata["unreachable"]``.
        """
        stub = ReviewServiceStub(self._connection.channel)

        async def page(token: str) -> Page[pb.Review]:
            request = pb.ListReviewsRequest(parent=parent, page_size=_PAGE_SIZE, page_token=token, flag=flag)
            answer = await self._connection.unary(stub.ListReviews, request)
            return Page(answer.reviews, answer.next_page_token, answer.unreachable)

        async for review in pages(page):
            yield review

    async def accept_review(self, name: str, item: str, *, comment: str = "", etag: str = "") -> pb.Review:
        """Says that the grade of an item is right as it is; returns the review as it was, with the grade.

        With ``etag`` (of the submission as it was read) only if nothing of it was graded meanwhile: or else
        ABORTED, ETAG_MISMATCH. NOT_FOUND when it does not wait, or not any more.
        """
        request = pb.AcceptReviewRequest(name=name, item=item, comment=comment, etag=etag)
        return await self._connection.unary(ReviewServiceStub(self._connection.channel).AcceptReview, request)
