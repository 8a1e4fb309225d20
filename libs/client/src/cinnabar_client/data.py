"""Calls about data at rest: grades as a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1.assignment_service_pb2_grpc import AssignmentServiceStub
from cinnabar_client.connection import Connection

ExportFormat = Literal["csv", "gradescope"]
_FORMATS: dict[ExportFormat, assignments_pb.ExportGradesRequest.Format.ValueType] = {
    "csv": assignments_pb.ExportGradesRequest.CSV,
    "gradescope": assignments_pb.ExportGradesRequest.GRADESCOPE,
}


class DataCalls:
    """The part of the client that these calls make up. Every method raises ApiError."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    async def export_grades(
        self, name: str, *, form: ExportFormat = "csv", latest_only: bool = False
    ) -> AsyncGenerator[bytes]:
        """The grades of an assignment as a file, in parts; with ``latest_only`` of each student the newest.

        The file is complete when this ends without an error. Leave it early only through
        ``contextlib.aclosing``.
        """
        request = assignments_pb.ExportGradesRequest(
            name=name, format=_FORMATS[form], latest_only=latest_only
        )
        stub = AssignmentServiceStub(self._connection.channel)
        async for part in self._connection.stream(stub.ExportGrades, request):
            yield part.data
