"""Files of leased tasks: asked for at the scheduler of the lease, moved past it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, TypeVar

import grpc

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common import presigned
from cinnabar_grader.answer_files import MAX_FILE_BYTES, NotText
from cinnabar_grader.code.archives import is_archive
from cinnabar_grader.graders import (
    ArchiveAnswer,
    Artifact,
    FailureCode,
    FileAnswer,
    LeaseToken,
    StoredArtifact,
    Ungradable,
)

if TYPE_CHECKING:
    from cinnabar.scheduler.v1.work_service_pb2_grpc import WorkServiceAsyncStub

log = logging.getLogger(__name__)
T = TypeVar("T")
CALL_SECONDS = 10.0
"""How long the scheduler may take, which asks storage, which may ask S3."""
TRANSFER_SECONDS = 10.0
"""How long a file may take."""


class StreamFiles:
    """Implements `answer_files.Files` for one stream; ``executor`` is where transfers block."""

    def __init__(self, stub: WorkServiceAsyncStub, executor: Executor) -> None:
        self._stub = stub
        self._executor = executor

    async def answer(
        self, token: LeaseToken, file: FileAnswer, *, archives: bool = False
    ) -> str | ArchiveAnswer:
        """See Files."""
        if not 0 < file.size_bytes <= MAX_FILE_BYTES:
            raise Ungradable(FailureCode.INVALID_ARGUMENT, "the size of the file is out of range")
        try:
            response = await self._stub.GetFiles(
                pb.GetFilesRequest(lease_token=token, uploads=[file.upload]), timeout=CALL_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise _away("no link to the file", error) from error
        url = response.files[0].url

        def work() -> str | ArchiveAnswer:
            content = presigned.fetch(
                url, size_bytes=file.size_bytes, sha256=file.sha256, seconds=TRANSFER_SECONDS
            )
            if archives and is_archive(content):
                return ArchiveAnswer(content)
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise NotText from None

        return await self._moved(work)

    async def keep(self, token: LeaseToken, artifact: Artifact) -> StoredArtifact:
        """See Files."""
        content = artifact.content
        sha256 = hashlib.sha256(content).digest()
        request = pb.CreateArtifactRequest(
            lease_token=token, content_type=artifact.content_type, size_bytes=len(content), sha256=sha256
        )
        try:
            form = await self._stub.CreateArtifact(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _away("no place for an artifact", error) from error
        fields = [(field.name, field.value) for field in form.fields]
        await self._moved(lambda: presigned.send(form.url, fields, content, seconds=TRANSFER_SECONDS))
        return StoredArtifact(artifact.title, artifact.content_type, form.upload, len(content), sha256)

    async def _moved(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except presigned.TransferFailed as error:
            log.info("file not moved", extra={"error": str(error)})
            raise Ungradable(FailureCode.UNAVAILABLE, str(error)) from None


def _away(what: str, error: grpc.aio.AioRpcError) -> Ungradable:
    # A lease that is lost too: whatever is reported of it then has no effect.
    return Ungradable(FailureCode.UNAVAILABLE, f"{what}: {error.code().name}")
