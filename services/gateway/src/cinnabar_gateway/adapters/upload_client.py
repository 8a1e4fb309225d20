"""The storage service, as the domain's store of files."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from cinnabar.storage.v1 import upload_service_pb2 as pb
from cinnabar.storage.v1.upload_service_pb2_grpc import UploadReaderServiceStub, UploadWriterServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_common.names import UploadName
from cinnabar_gateway import deadlines
from cinnabar_gateway.adapters import storage_messages as messages
from cinnabar_gateway.upload_ports import (
    FileFacts,
    NewUpload,
    PreparedUpload,
    UploadLink,
    UploadUse,
    UploadVerdict,
    VerifiedUpload,
)

_DEPENDENCY = "storage"
_MAX_USES = 1000
_Verdict = pb.VerifyUploadsResponse.Result.Verdict
_VERDICTS = {_Verdict.Value(verdict.name): verdict for verdict in UploadVerdict}


class UploadClient:
    """Implements the port UploadStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._writer = UploadWriterServiceStub(channel)
        self._reader = UploadReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def create_upload(self, new: NewUpload) -> PreparedUpload:
        """See UploadStore."""
        request = pb.CreateUploadRequest(
            tenant=new.tenant,
            file=pb.FileRecord(
                content_type=new.facts.content_type,
                size_bytes=new.facts.size_bytes,
                sha256=new.facts.sha256,
            ),
            answer=pb.CreateUploadRequest.Answer(
                course=new.parent.course,
                assignment=new.parent.assignment,
                item_id=new.item,
                author=new.author,
            ),
        )
        try:
            response = await self._writer.CreateUpload(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, _DEPENDENCY) from error
        return PreparedUpload(
            name=UploadName(response.course, response.assignment, response.upload_id),
            url=response.url,
            fields=tuple((field.name, field.value) for field in response.fields),
            expire_time_us=response.expire_time.ToMicroseconds(),
            position=messages.position(response.position),
        )

    async def verify_uploads(self, tenant: str, uses: Sequence[UploadUse]) -> list[VerifiedUpload]:
        """See UploadStore."""
        verified: list[VerifiedUpload] = []
        for start in range(0, len(uses), _MAX_USES):
            request = pb.VerifyUploadsRequest(tenant=tenant)
            for use in uses[start : start + _MAX_USES]:
                request.uses.add(
                    upload_id=use.name.upload,
                    item_id=use.item,
                    course=use.name.course,
                    assignment=use.name.assignment,
                    author=use.author,
                )
            try:
                response = await self._writer.VerifyUploads(request, timeout=deadlines.within(self._timeout))
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, _DEPENDENCY) from error
            verified += map(_verified, response.results)
        return verified

    async def upload_link(self, tenant: str, name: UploadName, *, author: str) -> UploadLink | None:
        """See UploadStore."""
        request = pb.CreateDownloadsRequest(tenant=tenant, upload_ids=[name.upload], author=author)
        try:
            response = await self._reader.CreateDownloads(request, timeout=deadlines.within(self._timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, _DEPENDENCY) from error
        for download in response.downloads:
            return UploadLink(
                name=UploadName(download.course, download.assignment, download.upload_id),
                facts=_facts(download.file),
                url=download.url,
                expire_time_us=response.expire_time.ToMicroseconds(),
            )
        return None


def _facts(file: pb.FileRecord) -> FileFacts:
    return FileFacts(file.content_type, file.size_bytes, file.sha256)


def _verified(result: pb.VerifyUploadsResponse.Result) -> VerifiedUpload:
    return VerifiedUpload(_VERDICTS[result.verdict], _facts(result.file) if result.HasField("file") else None)
