"""Uploads on a real S3 server: what a form and a link allow, and what is made of what came."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from minio import Minio

from cinnabar.storage.v1 import storage_service_pb2 as storage_pb
from cinnabar.storage.v1 import storage_service_pb2_grpc as storage_rpc
from cinnabar.storage.v1 import upload_service_pb2 as pb
from cinnabar.storage.v1 import upload_service_pb2_grpc as rpc
from cinnabar_common import presigned
from cinnabar_common.channels import channel
from cinnabar_common.presigned import TransferFailed
from cinnabar_local import sql
from cinnabar_local.servers import SeaweedFS
from cinnabar_storage.adapters.memory.objects import MemoryObjects
from cinnabar_storage.adapters.minio_objects import minio_objects
from cinnabar_storage.adapters.sql.server import Server
from cinnabar_storage.files.ports import Objects
from tests.support.objects import facts_of
from tests.support.servers import ShardUrls
from tests.support.storage_domain import new_tenant
from tests.support.storage_records import graded, new_submission
from tests.support.storage_service import config_for, storage_on
from tests.support.waiting import until

if TYPE_CHECKING:
    from cinnabar.storage.v1.upload_service_pb2_grpc import (
        UploadReaderServiceAsyncStub,
        UploadWriterServiceAsyncStub,
    )

CONTENT = b"an answer too long for a form field"
Verdict = pb.VerifyUploadsResponse.Result.Verdict


@dataclass(slots=True)
class Desk:
    """A storage service with files, and the S3 server past it."""

    writer: UploadWriterServiceAsyncStub
    reader: UploadReaderServiceAsyncStub
    storage: storage_rpc.StorageWriterServiceAsyncStub
    s3: Minio
    bucket: str
    address: str

    async def announce(self, tenant: str = "acme", content: bytes = CONTENT) -> pb.CreateUploadResponse:
        facts = facts_of(content)
        return await self.writer.CreateUpload(
            pb.CreateUploadRequest(
                tenant=tenant,
                file=pb.FileRecord(
                    content_type=facts.content_type, size_bytes=facts.size_bytes, sha256=facts.sha256
                ),
                answer=pb.CreateUploadRequest.Answer(
                    course="net", assignment="a1", item_id="q1", author="ann"
                ),
            )
        )

    async def send(
        self,
        form: pb.CreateUploadResponse,
        content: bytes = CONTENT,
        changes: Mapping[str, str] = MappingProxyType({}),
    ) -> int:
        """Sends a form with ``changes`` of its fields; the status that S3 answers, 200 for success."""
        fields = {field.name: field.value for field in form.fields} | dict(changes)
        try:
            await asyncio.to_thread(presigned.send, form.url, fields.items(), content, seconds=5)
        except TransferFailed as error:
            return error.status
        return 200

    async def verdict(self, form: pb.CreateUploadResponse, tenant: str = "acme") -> Verdict.ValueType:
        use = pb.VerifyUploadsRequest.Use(
            upload_id=form.upload_id, item_id="q1", course="net", assignment="a1", author="ann"
        )
        response = await self.writer.VerifyUploads(pb.VerifyUploadsRequest(tenant=tenant, uses=[use]))
        return response.results[0].verdict

    async def links(self, form: pb.CreateUploadResponse, **changes: Any) -> list[str]:
        request = pb.CreateDownloadsRequest(tenant="acme", upload_ids=[form.upload_id])
        for name, value in changes.items():
            setattr(request, name, value)
        return [one.url for one in (await self.reader.CreateDownloads(request)).downloads]

    async def keys(self) -> list[str]:
        listed = await asyncio.to_thread(lambda: [*self.s3.list_objects(self.bucket, recursive=True)])
        return [one.object_name or "" for one in listed]


def _key(form: pb.CreateUploadResponse) -> str:
    return next(field.value for field in form.fields if field.name == "key")


@pytest_asyncio.fixture(scope="module")
async def desk(
    storage_shards: list[ShardUrls], s3_settings: dict[str, Any], object_server: SeaweedFS
) -> AsyncGenerator[Desk]:
    """The service with a bucket of its own."""
    s3 = Minio(
        object_server.endpoint.removeprefix("http://"),
        access_key=object_server.access_key,
        secret_key=object_server.secret_key,
        region="us-east-1",
        secure=False,
    )
    async with storage_on(storage_shards, **s3_settings) as storage, channel(storage.address) as opened:
        yield Desk(
            *(rpc.UploadWriterServiceStub(opened), rpc.UploadReaderServiceStub(opened)),
            *(storage.writer, s3, s3_settings["s3_bucket"], storage.address),
        )


async def test_what_is_sent_as_announced_is_ready_and_can_be_read(desk: Desk) -> None:
    form = await desk.announce()
    assert await desk.verdict(form) == Verdict.MISSING
    assert await desk.send(form) == 200
    assert await desk.links(form) == []  # nobody looked at it yet
    assert await desk.verdict(form) == Verdict.READY
    for internal in (False, True):
        [url] = await desk.links(form, internal=internal)
        facts = facts_of(CONTENT)
        got = await asyncio.to_thread(
            presigned.fetch, url, size_bytes=facts.size_bytes, sha256=facts.sha256, seconds=5
        )
        assert got == CONTENT
    assert await desk.links(form, author="bob") == []
    assert await desk.links(form, tenant="other") == []


async def test_a_form_takes_one_file_under_one_key(desk: Desk) -> None:
    form, other = await desk.announce(), await desk.announce()
    assert await desk.send(form, changes={"key": _key(other)}) == 403
    assert await desk.send(form, changes={"key": _key(form) + "x"}) == 403
    assert await desk.send(form, CONTENT + b"!") == 400
    assert await desk.send(form, CONTENT[:-1]) == 400
    assert await desk.send(form, changes={"Content-Type": "text/html"}) == 403
    assert await desk.send(form, CONTENT.upper()) == 400
    assert await desk.send(form, changes={"x-amz-signature": "0" * 64}) == 403
    assert await desk.verdict(form) == Verdict.MISSING
    assert await desk.verdict(other) == Verdict.MISSING


async def test_the_form_of_another_tenant_is_of_no_use_here(desk: Desk) -> None:
    form = await desk.announce(tenant := new_tenant())
    assert await desk.send(form) == 200
    assert await desk.verdict(form) == Verdict.UNKNOWN
    assert await desk.verdict(form, tenant) == Verdict.READY
    assert await desk.links(form) == []


async def test_a_server_that_knows_no_checksums_is_no_danger(desk: Desk) -> None:
    form = await desk.announce()
    size, wrong = len(CONTENT), CONTENT.upper()
    for content, content_type, verdict in (
        (wrong, "text/plain", Verdict.WRONG_SHA256),
        (CONTENT, "text/html", Verdict.WRONG_CONTENT_TYPE),
        (CONTENT[: size - 1], "text/plain", Verdict.WRONG_SIZE),
    ):
        await asyncio.to_thread(_put, desk, _key(form), content, content_type)
        assert await desk.verdict(form) == verdict
    assert [key for key in await desk.keys() if form.upload_id in key] == [_key(form)]
    await asyncio.to_thread(_put, desk, _key(form), CONTENT, "text/plain")
    assert await desk.verdict(form) == Verdict.READY
    await asyncio.to_thread(_put, desk, _key(form), wrong, "text/plain")  # too late
    assert await desk.verdict(form) == Verdict.READY
    [url] = await desk.links(form)
    facts = facts_of(CONTENT)
    await asyncio.to_thread(presigned.fetch, url, size_bytes=size, sha256=facts.sha256, seconds=5)


def _put(desk: Desk, key: str, content: bytes, content_type: str) -> None:
    desk.s3.put_object(desk.bucket, key, io.BytesIO(content), len(content), content_type)


async def test_a_link_cannot_be_bent_and_is_not_needed_by_nobody(desk: Desk) -> None:
    form, other = await desk.announce(), await desk.announce()
    for one in (form, other):
        await desk.send(one)
        await desk.verdict(one)
    [url], [others] = await desk.links(form), await desk.links(other)
    path, _, query = url.partition("?")
    facts = facts_of(CONTENT)
    for bent in (f"{others.partition('?')[0]}?{query}", path, f"{path}?{query[:-4]}0000"):
        with pytest.raises(TransferFailed) as refused:
            await asyncio.to_thread(
                presigned.fetch, bent, size_bytes=facts.size_bytes, sha256=facts.sha256, seconds=5
            )
        assert refused.value.status == 403
    with pytest.raises(TransferFailed, match="not the one that was announced"):
        await asyncio.to_thread(
            presigned.fetch, url, size_bytes=facts.size_bytes, sha256=b"s" * 32, seconds=5
        )


async def test_an_object_that_was_deleted_is_missed(desk: Desk) -> None:
    form, ready = await desk.announce(), await desk.announce()
    for one in (form, ready):
        assert await desk.send(one) == 200
    assert await desk.verdict(ready) == Verdict.READY
    for key in await desk.keys():
        if form.upload_id in key or ready.upload_id in key:
            await asyncio.to_thread(desk.s3.remove_object, desk.bucket, key)
    assert await desk.verdict(form) == Verdict.MISSING
    assert await desk.links(ready) == []


async def test_an_artifact_is_of_a_submission(desk: Desk) -> None:
    row = new_submission(author="ann")
    await desk.storage.CreateSubmissions(storage_pb.CreateSubmissionsRequest(submissions=[row]))
    facts = facts_of(b"log")
    request = pb.CreateUploadRequest(
        tenant=row.tenant,
        file=pb.FileRecord(content_type="text/plain", size_bytes=3, sha256=facts.sha256),
        artifact=pb.CreateUploadRequest.Artifact(submission_id=row.submission_id, item_id="q1"),
    )
    form = await desk.writer.CreateUpload(request)
    assert (form.course, form.assignment) == (row.course, row.assignment)
    assert await desk.send(form, b"log") == 200
    use = pb.VerifyUploadsRequest.Use(upload_id=form.upload_id, item_id="q1", submission_id=row.submission_id)
    verified = await desk.writer.VerifyUploads(pb.VerifyUploadsRequest(tenant=row.tenant, uses=[use]))
    assert verified.results[0].verdict == Verdict.READY
    assert len(await desk.links(form, submission_id=row.submission_id)) == 1
    request.tenant = "other"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await desk.writer.CreateUpload(request)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_forms_and_links_end(
    desk: Desk, storage_shards: list[ShardUrls], s3_settings: dict[str, Any]
) -> None:
    settings = s3_settings | {"upload_seconds": 2, "link_seconds": 1}
    async with storage_on(storage_shards, **settings) as storage, channel(storage.address) as opened:
        hasty = Desk(
            *(rpc.UploadWriterServiceStub(opened), rpc.UploadReaderServiceStub(opened)),
            *(storage.writer, desk.s3, desk.bucket, storage.address),
        )
        form, used = await hasty.announce(), await hasty.announce()
        assert await hasty.send(used) == 200
        assert await hasty.verdict(used) == Verdict.READY
        [url] = await hasty.links(used)

        async def gone() -> bool:
            try:
                await asyncio.to_thread(presigned.fetch, url, size_bytes=1, sha256=b"", seconds=5)
            except TransferFailed as error:
                return error.status == 403
            return False

        async def late() -> bool:
            return await hasty.send(form) == 403 and await hasty.send(used) == 403

        await until(gone, "the link has expired")
        await until(late, "both forms have expired")
        assert await hasty.verdict(used) == Verdict.EXPIRED


@asynccontextmanager
async def silent() -> AsyncGenerator[str]:
    """A server that takes connections and never says anything; its address."""

    def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(quiet, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in held:
            writer.close()


@pytest.mark.parametrize("kind", ["away", "silent", "none"])
async def test_without_s3_files_are_unavailable_and_all_the_rest_works(
    kind: str, desk: Desk, storage_shards: list[ShardUrls], s3_settings: dict[str, Any]
) -> None:
    form = await desk.announce()
    assert await desk.send(form) == 200
    async with silent() as endpoint, AsyncExitStack() as exits:
        endpoint = endpoint if kind == "silent" else "http://127.0.0.1:1"
        lame = s3_settings | {"s3_endpoint": endpoint, "s3_connect_seconds": 0.2, "s3_seconds": 0.2}
        settings = {} if kind == "none" else lame
        storage = await exits.enter_async_context(storage_on(storage_shards, **settings))
        opened = await exits.enter_async_context(channel(storage.address))
        away = Desk(
            *(rpc.UploadWriterServiceStub(opened), rpc.UploadReaderServiceStub(opened)),
            *(storage_rpc.StorageWriterServiceStub(opened), desk.s3, desk.bucket, storage.address),
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await away.announce()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "objects" in str(refused.value.details())
        if kind != "none":
            assert await away.verdict(form) == Verdict.UNAVAILABLE
        row = new_submission()
        created = await away.storage.CreateSubmissions(storage_pb.CreateSubmissionsRequest(submissions=[row]))
        assert created.results[0].status == storage_pb.CreateSubmissionsResponse.Result.CREATED
        committed = await away.storage.CommitOutcomes(
            storage_pb.CommitOutcomesRequest(outcomes=[graded(row)])
        )
        assert list(committed.results) == [storage_pb.CommitOutcomesResponse.COMMITTED]
        assert await _health(opened, "") == health_pb2.HealthCheckResponse.SERVING
        if kind != "none":
            assert await _health(opened, "objects") == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_tells_of_s3(desk: Desk) -> None:
    async with channel(desk.address) as opened:
        assert await _health(opened, "objects") == health_pb2.HealthCheckResponse.SERVING


async def _health(opened: grpc.aio.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(opened).Check(request)).status


async def test_one_process_collects(storage_shards: list[ShardUrls]) -> None:
    def server() -> Server:
        return Server(
            storage_shards[0].primary_url,
            name="collector",
            pool_size=1,
            pool_wait_seconds=1,
            connect_seconds=5,
            statement_seconds=5,
        )

    async with server() as one, server() as other:
        async with one.alone(7) as first, other.alone(7) as second, other_lock(storage_shards) as third:
            assert (first, second, third) == (True, False, True)
        async with other.alone(7) as again:
            assert again


@asynccontextmanager
async def other_lock(shards: list[ShardUrls]) -> AsyncGenerator[bool]:
    """Another lock than that of the test."""
    async with sql.connected(shards[0].primary_url) as connection:
        yield bool(await connection.fetchval("SELECT pg_try_advisory_lock(8)"))


@pytest.mark.parametrize("kind", ["memory", "s3"])
async def test_every_store_of_objects_keeps_the_same_promises(
    kind: str, desk: Desk, storage_shards: list[ShardUrls], s3_settings: Mapping[str, Any]
) -> None:
    async with minio_objects(config_for(storage_shards, **s3_settings)) as s3:
        assert s3 is not None
        memory = MemoryObjects()
        objects: Objects = memory if kind == "memory" else s3
        await objects.prepare()
        await objects.prepare()
        prefix = f"contract/{new_tenant()}/"
        keys = [f"{prefix}{name}" for name in "abc"]
        for key in keys:
            if kind == "memory":
                memory.put(key, CONTENT)
            else:
                await asyncio.to_thread(_put, desk, key, CONTENT, "text/plain")
        assert await objects.stat(keys[0]) == (len(CONTENT), "text/plain")
        assert await objects.copy(keys[0], f"{prefix}d")
        assert await objects.facts(f"{prefix}d", max_bytes=len(CONTENT)) == facts_of(CONTENT)
        assert await objects.facts(keys[0], max_bytes=len(CONTENT) - 1) is None
        nothing = f"{prefix}nothing"
        assert await objects.stat(nothing) is None
        assert await objects.facts(nothing, max_bytes=1) is None
        assert not await objects.copy(nothing, f"{prefix}e")
        first = await objects.listed(prefix, "", 3)
        assert [one.key for one in first] == keys
        rest = await objects.listed(prefix, keys[-1], 3)
        assert [one.key for one in rest] == [f"{prefix}d"]
        assert first[0].modified <= rest[0].modified
        await objects.delete([*keys, nothing])
        await objects.delete([])
        assert [one.key for one in await objects.listed(prefix, "", 10)] == [f"{prefix}d"]
