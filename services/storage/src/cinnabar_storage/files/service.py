"""Uploads over gRPC, and what their requests must be; knows nothing of Postgres and S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from cinnabar.storage.v1 import upload_service_pb2 as pb
from cinnabar.storage.v1 import upload_service_pb2_grpc
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage import responses
from cinnabar_storage.convert import MAX_ID_CHARACTERS, MAX_KEYS
from cinnabar_storage.files.records import (
    AnswerPlace,
    ArtifactPlace,
    FileFacts,
    Upload,
    Use,
    Verdict,
)
from cinnabar_storage.files.uploads import Uploads, Verified

Context = grpc.aio.ServicerContext[Any, Any]
MAX_FILE_BYTES = 16 * 1024 * 1024
_SHA256_BYTES = 32
_MAX_CONTENT_TYPE = 128
_Verdict = pb.VerifyUploadsResponse.Result.Verdict
_VERDICTS: dict[Verdict, _Verdict.ValueType] = {verdict: _Verdict.Value(verdict.name) for verdict in Verdict}


class UploadWriter(upload_service_pb2_grpc.UploadWriterServiceServicer):
    """Announces and verifies."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def CreateUpload(
        self, request: pb.CreateUploadRequest, context: Context
    ) -> pb.CreateUploadResponse:
        upload, form, position = await self._uploads.create(request.tenant, _place(request), _facts(request))
        return pb.CreateUploadResponse(
            upload_id=upload.upload_id,
            course=upload.course,
            assignment=upload.assignment,
            url=form.url,
            fields=[pb.CreateUploadResponse.Field(name=name, value=value) for name, value in form.fields],
            expire_time=responses.timestamp(upload.expire_time),
            position=responses.position(position),
        )

    async def VerifyUploads(
        self, request: pb.VerifyUploadsRequest, context: Context
    ) -> pb.VerifyUploadsResponse:
        results = await self._uploads.verify(request.tenant, _uses(request))
        return pb.VerifyUploadsResponse(results=map(_result, results))


class UploadReader(upload_service_pb2_grpc.UploadReaderServiceServicer):
    """Gives links."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def CreateDownloads(
        self, request: pb.CreateDownloadsRequest, context: Context
    ) -> pb.CreateDownloadsResponse:
        _refuse_if(_wrong_keys(request.tenant, len(request.upload_ids), "upload_ids"))
        found, expire_time = await self._uploads.downloads(
            request.tenant,
            request.upload_ids,
            author=request.author,
            submission_id=request.submission_id,
            internal=request.internal,
        )
        return pb.CreateDownloadsResponse(
            downloads=[
                pb.CreateDownloadsResponse.Download(
                    upload_id=upload.upload_id,
                    course=upload.course,
                    assignment=upload.assignment,
                    file=_record(upload),
                    url=url,
                )
                for upload, url in found
            ],
            expire_time=responses.timestamp(expire_time),
        )


def _record(file: Upload | FileFacts) -> pb.FileRecord:
    return pb.FileRecord(content_type=file.content_type, size_bytes=file.size_bytes, sha256=file.sha256)


def _result(verified: Verified) -> pb.VerifyUploadsResponse.Result:
    facts = verified.facts
    return pb.VerifyUploadsResponse.Result(
        verdict=_VERDICTS[verified.verdict], file=_record(facts) if facts is not None else None
    )


def _place(request: pb.CreateUploadRequest) -> AnswerPlace | ArtifactPlace:
    match request.WhichOneof("use"):
        case "answer":
            use = request.answer
            place = AnswerPlace(use.course, use.assignment, use.item_id, use.author)
        case "artifact":
            place = ArtifactPlace(request.artifact.submission_id, request.artifact.item_id)
        case None:
            raise InvalidRequest([FieldViolation("use", "is required")])
    path = request.WhichOneof("use") or ""
    violations = [
        FieldViolation(f"{path}.{name}", "is required")
        for name, value in place._asdict().items()
        if not value
    ]
    ids = "".join((request.tenant, *place))
    if len(ids) > MAX_ID_CHARACTERS or "\0" in ids:
        violations.append(
            FieldViolation(path, f"ids must have at most {MAX_ID_CHARACTERS} characters together")
        )
    _refuse_if(violations)
    return place


def _facts(request: pb.CreateUploadRequest) -> FileFacts:
    _refuse_if([*_wrong_facts(request)])
    file = request.file
    return FileFacts(file.content_type, file.size_bytes, file.sha256)


def _wrong_facts(request: pb.CreateUploadRequest) -> Iterator[FieldViolation]:
    file = request.file
    if not request.tenant:
        yield FieldViolation("tenant", "is required")
    if not (0 < len(file.content_type) <= _MAX_CONTENT_TYPE and file.content_type.isprintable()):
        yield FieldViolation("file.content_type", f"must be 1 to {_MAX_CONTENT_TYPE} printable characters")
    if not 1 <= file.size_bytes <= MAX_FILE_BYTES:
        yield FieldViolation("file.size_bytes", f"must be 1 to {MAX_FILE_BYTES}")
    if len(file.sha256) != _SHA256_BYTES:
        yield FieldViolation("file.sha256", f"must have {_SHA256_BYTES} bytes")


def _uses(request: pb.VerifyUploadsRequest) -> list[Use]:
    violations = _wrong_keys(request.tenant, len(request.uses), "uses")
    uses = [
        Use(use.upload_id, use.item_id, use.course, use.assignment, use.author, use.submission_id)
        for use in request.uses
    ]
    violations += [
        FieldViolation(f"uses[{index}]", "must have either an author or a submission_id")
        for index, use in enumerate(uses)
        if bool(use.author) == bool(use.submission_id)
    ]
    _refuse_if(violations)
    return uses


def _wrong_keys(tenant: str, count: int, field: str) -> list[FieldViolation]:
    violations: list[FieldViolation] = []
    if not tenant:
        violations.append(FieldViolation("tenant", "is required"))
    if count > MAX_KEYS:
        violations.append(FieldViolation(field, f"must not have more than {MAX_KEYS} elements"))
    return violations


def _refuse_if(violations: list[FieldViolation]) -> None:
    if violations:
        raise InvalidRequest(violations)
