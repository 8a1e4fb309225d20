"""The storage service, as the domain's store of reviews."""

from __future__ import annotations

from typing import TypeVar

import grpc

from cinnabar.storage.v1 import records_pb2, storage_service_pb2
from cinnabar.storage.v1 import review_service_pb2 as pb
from cinnabar.storage.v1.review_service_pb2_grpc import (
    StorageReviewReaderServiceStub,
    StorageReviewWriterServiceStub,
)
from cinnabar.storage.v1.storage_service_pb2_grpc import StorageReaderServiceStub
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_common.errors import EtagMismatch, ResourceNotFound, SuiteError, from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.review_records import (
    AuditCursor,
    AuditEvent,
    AuditPage,
    Grading,
    GradingKind,
    GradingPage,
    Overridden,
    Override,
    SealCheck,
    SealLink,
)

_DEPENDENCY = "storage"
_Kind = records_pb2.GradeRecord.Kind
_KINDS = {_Kind.Value(kind.name): kind for kind in GradingKind}
Q = TypeVar("Q")
A = TypeVar("A")


class ReviewClient:
    """Implements the port ReviewStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._writer = StorageReviewWriterServiceStub(channel)
        self._reader = StorageReviewReaderServiceStub(channel)
        self._shards = StorageReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, A], request: Q) -> A:
        try:
            return await method(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, _DEPENDENCY) from error

    async def override_grade(self, override: Override) -> Overridden:
        """See ReviewStore."""
        request = pb.OverrideGradeRequest(
            submission=_key(override.key),
            item_id=override.item,
            score=override.score,
            grade=override.grade,
            actor=override.actor,
            reason=override.reason,
            etag=override.etag,
            revision_id=override.revision_id,
        )
        try:
            response = await self._call(self._writer.OverrideGrade, request)
        except SuiteError as error:
            raise meant(error, override.key.submission_id) from error
        return Overridden(response.applied, (messages.position(response.position),))

    async def list_gradings(
        self,
        key: SubmissionKey,
        *,
        shadows: bool,
        after: tuple[str, int],
        limit: int,
        min_positions: Positions,
    ) -> GradingPage:
        """See ReviewStore."""
        request = pb.ListGradingsRequest(
            submission=_key(key),
            shadows=shadows,
            after_item_id=after[0],
            after_generation=after[1],
            limit=limit,
            min_positions=messages.position_messages(min_positions),
        )
        response = await self._call(self._reader.ListGradings, request)
        return GradingPage(tuple(map(_grading, response.gradings)), response.more)

    async def list_audit_events(
        self, key: SubmissionKey, *, after: AuditCursor | None, limit: int, min_positions: Positions
    ) -> AuditPage:
        """See ReviewStore."""
        request = pb.ListAuditEventsRequest(
            submission=_key(key), limit=limit, min_positions=messages.position_messages(min_positions)
        )
        if after is not None:
            request.after.CopyFrom(
                pb.AuditCursor(time_us=after.time_us, audit_id=after.audit_id, shard=after.shard)
            )
        response = await self._call(self._reader.ListAuditEvents, request)
        return AuditPage(tuple(map(_event, response.events)), response.more)

    async def shard_count(self) -> int:
        """See ReviewStore."""
        response = await self._call(self._shards.ListShards, storage_service_pb2.ListShardsRequest())
        return response.shard_count

    async def check_seals(self, shard: int, after: SealLink | None) -> SealCheck:
        """See ReviewStore."""
        request = pb.CheckSealsRequest(shard=shard)
        if after is not None:
            request.after.CopyFrom(
                pb.SealLink(
                    seal=after.seal,
                    last_xid=after.last_xid,
                    last_audit_id=after.last_audit_id,
                    hash=after.hash,
                )
            )
        response = await self._call(self._reader.CheckSeals, request)
        link = response.link
        return SealCheck(
            seals=response.seals,
            events=response.events,
            redacted=response.redacted,
            breaks=tuple((one.seal, one.problem) for one in response.breaks),
            link=SealLink(link.seal, link.last_xid, link.last_audit_id, link.hash),
            more=response.more,
            unsealed=response.unsealed,
        )


def _key(key: SubmissionKey) -> storage_service_pb2.SubmissionKey:
    return storage_service_pb2.SubmissionKey(tenant=key.tenant, submission_id=key.submission_id)


def _grading(message: pb.GradingRecord) -> Grading:
    return Grading(
        grade=messages.grade(message.grade),
        kind=_KINDS.get(message.grade.kind, GradingKind.GRADED),
        actor=message.grade.actor,
        reason=message.grade.reason,
        regrade_id=message.grade.regrade_id,
        current=message.current,
    )


def _event(message: pb.AuditEventRecord) -> AuditEvent:
    return AuditEvent(
        cursor=AuditCursor(message.cursor.time_us, message.cursor.audit_id, message.cursor.shard),
        actor=message.actor,
        action=message.action,
        item=message.item_id,
        generation=message.generation,
        detail=message.detail,
        sealed=message.sealed,
    )


def meant(error: SuiteError, name: str) -> SuiteError:
    """The domain's word for what storage said about a submission."""
    match error.error_reason:
        case ErrorReason.RESOURCE_NOT_FOUND:
            return ResourceNotFound(name)
        case ErrorReason.ETAG_MISMATCH:
            return EtagMismatch(name)
        case _:
            return error
