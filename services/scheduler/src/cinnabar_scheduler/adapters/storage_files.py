"""The storage service as the scheduler's store of files."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from cinnabar.storage.v1 import upload_service_pb2 as pb
from cinnabar.storage.v1.upload_service_pb2_grpc import UploadReaderServiceStub, UploadWriterServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_common.names import UploadName
from cinnabar_scheduler.ports import ArtifactForm, ArtifactState, CheckedArtifact, FileFacts, FileLink

_Verdict = pb.VerifyUploadsResponse.Result.Verdict
_STATES = {
    _Verdict.READY: ArtifactState.READY,
    _Verdict.UNAVAILABLE: ArtifactState.UNAVAILABLE,
    _Verdict.SHARD_UNAVAILABLE: ArtifactState.UNAVAILABLE,
}


class StorageFiles:
    """Implements ports.FileStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float) -> None:
        self._writer = UploadWriterServiceStub(channel)
        self._reader = UploadReaderServiceStub(channel)
        self._timeout = timeout_seconds

    async def file_link(self, tenant: str, submission: str, upload: str) -> FileLink | None:
        request = pb.CreateDownloadsRequest(
            tenant=tenant, upload_ids=[upload], submission_id=submission, internal=True
        )
        try:
            response = await self._reader.CreateDownloads(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "storage") from error
        for download in response.downloads:
            return FileLink(download.url, response.expire_time.ToMilliseconds())
        return None

    async def prepare_artifact(
        self, tenant: str, submission: str, item: str, facts: FileFacts
    ) -> ArtifactForm:
        request = pb.CreateUploadRequest(
            tenant=tenant,
            file=pb.FileRecord(
                content_type=facts.content_type, size_bytes=facts.size_bytes, sha256=facts.sha256
            ),
            artifact=pb.CreateUploadRequest.Artifact(submission_id=submission, item_id=item),
        )
        try:
            response = await self._writer.CreateUpload(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "storage") from error
        return ArtifactForm(
            UploadName(response.course, response.assignment, response.upload_id),
            response.url,
            tuple((field.name, field.value) for field in response.fields),
            response.expire_time.ToMilliseconds(),
        )

    async def check_artifacts(
        self, tenant: str, submission: str, item: str, uploads: Sequence[str]
    ) -> list[CheckedArtifact]:
        request = pb.VerifyUploadsRequest(tenant=tenant)
        for upload in uploads:
            request.uses.add(upload_id=upload, item_id=item, submission_id=submission)
        try:
            response = await self._writer.VerifyUploads(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "storage") from error
        return [
            CheckedArtifact(
                _STATES.get(result.verdict, ArtifactState.REFUSED),
                FileFacts(result.file.content_type, result.file.size_bytes, result.file.sha256)
                if result.HasField("file")
                else None,
            )
            for result in response.results
        ]
