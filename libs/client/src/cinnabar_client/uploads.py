"""Files past the suite: up by a form, down by a link."""

from __future__ import annotations

import asyncio
import hashlib

import grpc

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2_grpc import SubmissionServiceStub
from cinnabar.type.v1.error_reason_pb2 import ErrorReason
from cinnabar_client.connection import Connection
from cinnabar_client.errors import ApiError
from cinnabar_common import presigned

TRANSFER_SECONDS = 30.0
"""How long each step of a transfer may take on the network."""
_SERVER_ERRORS = 500


async def upload(
    connection: Connection, parent: str, item: str, content: bytes, *, content_type: str, author: str
) -> pb.Upload:
    """Announces ``content`` and sends it. Raises ApiError."""
    announced = pb.Upload(
        item=item,
        author=author,
        content_type=content_type,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
    )
    stub = SubmissionServiceStub(connection.channel)
    made = await connection.unary(stub.CreateUpload, pb.CreateUploadRequest(parent=parent, upload=announced))
    fields = [(field.name, field.value) for field in made.fields]
    try:
        await asyncio.to_thread(presigned.send, made.url, fields, content, seconds=TRANSFER_SECONDS)
    except presigned.TransferFailed as error:
        raise _refusal(error) from None
    return made


async def download(connection: Connection, name: str) -> tuple[bytes, pb.Download]:
    """What a file holds, compared with its checksum, and what it is. Raises ApiError."""
    stub = SubmissionServiceStub(connection.channel)
    link = await connection.unary(stub.CreateDownload, pb.CreateDownloadRequest(name=name))

    def work() -> bytes:
        return presigned.fetch(
            link.url, size_bytes=link.size_bytes, sha256=link.sha256, seconds=TRANSFER_SECONDS
        )

    try:
        return await asyncio.to_thread(work), link
    except presigned.TransferFailed as error:
        raise _refusal(error) from None


def _refusal(error: presigned.TransferFailed) -> ApiError:
    if 0 < error.status < _SERVER_ERRORS:
        return ApiError(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    return ApiError(
        grpc.StatusCode.UNAVAILABLE,
        str(error),
        reason=ErrorReason.Name(ErrorReason.DEPENDENCY_UNAVAILABLE),
        metadata={"dependency": "objects"},
    )
