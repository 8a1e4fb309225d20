"""Speaks gRPC about reviews: overrides, the history of grades, the audit and its seals."""

from __future__ import annotations

from typing import Any

import grpc

from cinnabar.storage.v1 import review_service_pb2 as pb
from cinnabar.storage.v1 import review_service_pb2_grpc as rpc
from cinnabar_storage import convert, responses
from cinnabar_storage.reviewing import convert as review_convert
from cinnabar_storage.reviewing.overrides import Reviews

Context = grpc.aio.ServicerContext[Any, Any]


class StorageReviewWriter(rpc.StorageReviewWriterServiceServicer):
    """What people change of grades."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews

    async def OverrideGrade(
        self, request: pb.OverrideGradeRequest, context: Context
    ) -> pb.OverrideGradeResponse:
        overridden, position = await self._reviews.override(review_convert.override(request))
        return pb.OverrideGradeResponse(
            generation=overridden.generation,
            applied=overridden.applied,
            position=responses.position(position),
        )


class StorageReviewReader(rpc.StorageReviewReaderServiceServicer):
    """What happened to submissions, and the proof of it."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews

    async def ListGradings(
        self, request: pb.ListGradingsRequest, context: Context
    ) -> pb.ListGradingsResponse:
        page = await self._reviews.gradings(
            review_convert.grading_query(request), convert.positions(request.min_positions)
        )
        return review_convert.gradings(page)

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        page = await self._reviews.audit_events(
            *review_convert.audit_query(request), convert.positions(request.min_positions)
        )
        return review_convert.audit_events(page)

    async def CheckSeals(self, request: pb.CheckSealsRequest, context: Context) -> pb.CheckSealsResponse:
        check = await self._reviews.check_seals(request.shard, review_convert.seal_link(request))
        return review_convert.seal_check(check)
