"""What the gateway may expect of a store of files, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol
from uuid import uuid4

import pytest
import pytest_asyncio

from cinnabar_common import presigned
from cinnabar_common.channels import channel
from cinnabar_common.names import AssignmentName, UploadName, bucket_of, new_id
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.adapters.storage_client import StorageClient
from cinnabar_gateway.adapters.upload_client import UploadClient
from cinnabar_gateway.ports import SubmissionStore
from cinnabar_gateway.records import Fate, NewSubmission, TaskPlan
from cinnabar_gateway.upload_ports import (
    FileFacts,
    NewUpload,
    PreparedUpload,
    UploadStore,
    UploadUse,
    UploadVerdict,
)
from tests.support.objects import facts_of
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on

PARENT = AssignmentName("net", "a1")
CONTENT = b"an essay"
FACTS = FileFacts(*facts_of(CONTENT))


class Backend(Protocol):
    """Both stores, and the way past them."""

    uploads: UploadStore
    submissions: SubmissionStore

    async def send(self, upload: PreparedUpload, content: bytes) -> None:
        """Fills in the form."""
        ...


class MemoryBackend:
    """In memory."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._files = storage.uploads
        self.uploads: UploadStore = storage.uploads
        self.submissions: SubmissionStore = storage

    async def send(self, upload: PreparedUpload, content: bytes) -> None:
        self._files.put(str(upload.name), content)


class StorageBackend:
    """The storage service and a real S3, through the gateway's own clients."""

    def __init__(self, uploads: UploadClient, submissions: StorageClient) -> None:
        self.uploads: UploadStore = uploads
        self.submissions: SubmissionStore = submissions

    async def send(self, upload: PreparedUpload, content: bytes) -> None:
        await asyncio.to_thread(presigned.send, upload.url, upload.fields, content, seconds=5)


@pytest_asyncio.fixture(params=["memory", "storage"], scope="module")
async def backend(
    request: pytest.FixtureRequest, storage_shards: list[ShardUrls], s3_settings: dict[str, Any]
) -> AsyncGenerator[Backend]:
    """Stores; each test uses a tenant of its own."""
    if request.param == "memory":
        yield MemoryBackend()
        return
    async with (
        storage_on(storage_shards, **s3_settings) as service,
        channel(service.address) as connection,
    ):
        yield StorageBackend(UploadClient(connection), StorageClient(connection))


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody has used."""
    return f"tenant-{uuid4().hex[:12]}"


async def announced(backend: Backend, tenant: str) -> PreparedUpload:
    return await backend.uploads.create_upload(
        NewUpload(tenant=tenant, parent=PARENT, item="q1", author="ann", facts=FACTS)
    )


async def uploaded(backend: Backend, tenant: str) -> PreparedUpload:
    prepared = await announced(backend, tenant)
    await backend.send(prepared, CONTENT)
    return prepared


def referring(tenant: str, *uploads: PreparedUpload) -> NewSubmission:
    plan = TaskPlan("q1", "text", "r1/q1")
    return NewSubmission(
        submission_id=new_id(bucket_of(tenant, "ann")),
        tenant=tenant,
        name=PARENT,
        revision_id="r1",
        author="ann",
        request_id="",
        fingerprint=b"",
        priority=3,
        answers=b"answers",
        max_score=1.0,
        tasks=[(plan, b"answer")],
        create_time_us=1_700_000_000_000_000,
        files=[(index, upload.name) for index, upload in enumerate(uploads)],
    )


async def verdict(backend: Backend, tenant: str, use: UploadUse) -> UploadVerdict:
    [verified] = await backend.uploads.verify_uploads(tenant, [use])
    assert verified.facts == (FACTS if verified.verdict is UploadVerdict.READY else None)
    return verified.verdict


async def test_what_was_uploaded_is_ready_until_a_submission_has_it(backend: Backend, tenant: str) -> None:
    prepared = await announced(backend, tenant)
    assert prepared.name.parent == PARENT
    assert prepared.url
    assert prepared.fields
    use = UploadUse(prepared.name, "q1", "ann")
    assert await verdict(backend, tenant, use) is UploadVerdict.MISSING
    await backend.send(prepared, CONTENT)
    assert await verdict(backend, tenant, use) is UploadVerdict.READY
    new, late = referring(tenant, prepared), referring(tenant, prepared)
    [first] = await backend.submissions.create_submissions([new])
    [second] = await backend.submissions.create_submissions([late])
    [again] = await backend.submissions.create_submissions([new])
    assert [first.fate, second.fate, again.fate] == [Fate.CREATED, Fate.UPLOAD_REFUSED, Fate.DUPLICATE]
    assert await verdict(backend, tenant, use) is UploadVerdict.ATTACHED


async def test_an_upload_is_for_its_author_assignment_and_item(backend: Backend, tenant: str) -> None:
    name = (await uploaded(backend, tenant)).name
    other = UploadName("net", "a2", name.upload)
    for use, expected in (
        (UploadUse(name, "q2", "ann"), UploadVerdict.WRONG_ITEM),
        (UploadUse(name, "q1", "bob"), UploadVerdict.UNKNOWN),
        (UploadUse(other, "q1", "ann"), UploadVerdict.UNKNOWN),
        (UploadUse(UploadName("net", "a1", "none"), "q1", "ann"), UploadVerdict.UNKNOWN),
    ):
        assert await verdict(backend, tenant, use) is expected
    assert await verdict(backend, f"{tenant}-x", UploadUse(name, "q1", "ann")) is UploadVerdict.UNKNOWN


async def test_a_link_is_for_what_is_verified_and_whose_it_is(backend: Backend, tenant: str) -> None:
    prepared, pending = await uploaded(backend, tenant), await announced(backend, tenant)
    await verdict(backend, tenant, UploadUse(prepared.name, "q1", "ann"))
    for author in ("ann", ""):
        link = await backend.uploads.upload_link(tenant, prepared.name, author=author)
        assert link is not None
        assert (link.name, link.facts) == (prepared.name, FACTS)
        assert link.url
    assert await backend.uploads.upload_link(tenant, prepared.name, author="bob") is None
    assert await backend.uploads.upload_link(f"{tenant}-x", prepared.name, author="") is None
    assert await backend.uploads.upload_link(tenant, pending.name, author="") is None
