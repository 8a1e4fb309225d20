"""The past of assignments, over gRPC."""

from __future__ import annotations

from cinnabar.storage.v1 import revision_service_pb2 as pb
from cinnabar.storage.v1 import revision_service_pb2_grpc
from cinnabar_storage import convert
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.service import Context


class RevisionReader(revision_service_pb2_grpc.RevisionReaderServiceServicer):
    """Which revisions there are; what is in them is read by their ids."""

    def __init__(self, assignments: Assignments) -> None:
        self._assignments = assignments

    async def ListRevisions(
        self, request: pb.ListRevisionsRequest, context: Context
    ) -> pb.ListRevisionsResponse:
        ids = await self._assignments.revision_ids(convert.revision_query(request))
        return pb.ListRevisionsResponse(revision_ids=ids)
