"""Files as answers, at the gateway: announcing them, handing them in, reading them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio

from cinnabar.gateway.v1.submission_service_pb2 import (
    BatchCreateSubmissionsRequest,
    CreateDownloadRequest,
    CreateSubmissionRequest,
    CreateUploadRequest,
    Submission,
    Upload,
)
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.adapters.memory_uploads import FORM_SECONDS
from tests.support.gateway_world import (
    INSTRUCTOR,
    OPERATOR,
    OTHER_STUDENT,
    PARENT,
    STUDENT,
    Metadata,
    World,
    answers,
    create_request,
    credential,
    key_of,
    refusal_in,
    refused,
    world,
)
from tests.support.waiting import until

TEXT = b"It says how much may be unacknowledged."
SHA256 = hashlib.sha256(TEXT).digest()
FIELD = "submission.answers[3].file.upload"


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def gateway(clock: ManualClock) -> AsyncGenerator[World]:
    async with world(clock=clock, storage=MemoryStorage(clock)) as running:
        await running.assignment()
        yield running


def announcement(**changes: object) -> CreateUploadRequest:
    fields: dict[str, object] = {
        "item": "explain",
        "content_type": "text/plain",
        "size_bytes": len(TEXT),
        "sha256": SHA256,
    }
    return CreateUploadRequest(parent=PARENT, upload=Upload(**(fields | changes)))  # pyright: ignore[reportArgumentType]


async def announced(gateway: World, metadata: Metadata = STUDENT, **changes: object) -> Upload:
    return await gateway.submissions.CreateUpload(announcement(**changes), metadata=metadata)


async def uploaded(gateway: World, metadata: Metadata = STUDENT, **changes: object) -> Upload:
    upload = await announced(gateway, metadata, **changes)
    gateway.storage.uploads.put(upload.name, TEXT)
    return upload


def handing_in(name: str, *, request_id: str = "", author: str = "") -> CreateSubmissionRequest:
    request = create_request(request_id=request_id, author=author)
    request.submission.answers[3].CopyFrom(Answer(item="explain", file=Answer.File(upload=name)))
    return request


async def test_a_student_announces_a_file_and_is_told_how_to_upload_it(gateway: World) -> None:
    upload = await announced(gateway)
    assert upload.name.startswith(f"{PARENT}/uploads/")
    assert (upload.author, upload.item) == ("ann", "explain")
    assert upload.url
    assert upload.fields
    assert upload.expire_time.ToSeconds() == 1_800_000_000 + FORM_SECONDS


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"item": ""}, "upload.item"),
        ({"item": "nowhere"}, "upload.item"),
        ({"item": "pick"}, "upload.item"),
        ({"content_type": ""}, "upload.content_type"),
        ({"content_type": "text"}, "upload.content_type"),
        ({"content_type": "text/plain; charset=utf-8"}, "upload.content_type"),
        ({"content_type": f"text/{'x' * 64}"}, "upload.content_type"),
        ({"size_bytes": 0}, "upload.size_bytes"),
        ({"size_bytes": 16 * 1024 * 1024 + 1}, "upload.size_bytes"),
        ({"sha256": b""}, "upload.sha256"),
        ({"sha256": SHA256[:31]}, "upload.sha256"),
        ({"author": "Not an id"}, "upload.author"),
    ],
)
async def test_an_announcement_keeps_to_the_rules(
    gateway: World, changes: dict[str, object], field: str
) -> None:
    refusal = await refused(announced(gateway, STUDENT, **changes))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


async def test_who_may_announce_for_whom(gateway: World) -> None:
    assert (await refused(announced(gateway, author="bob"))).reason == "ROLE_FORBIDDEN"
    assert (await refused(announced(gateway, INSTRUCTOR))).fields == ("upload.author",)
    assert (await announced(gateway, INSTRUCTOR, author="bob")).author == "bob"
    assert (await refused(announced(gateway, OPERATOR))).reason == "ROLE_FORBIDDEN"
    elsewhere = credential("student", "ann", tenant="other")
    assert (await refused(announced(gateway, elsewhere))).reason == "RESOURCE_NOT_FOUND"


async def test_what_is_handed_in_says_what_the_file_is(gateway: World) -> None:
    upload = await uploaded(gateway)
    request = handing_in(upload.name)
    request.submission.answers[3].file.size_bytes = 1  # what a caller says here is not listened to
    created = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
    expected = Answer.File(upload=upload.name, content_type="text/plain", size_bytes=len(TEXT), sha256=SHA256)
    assert created.answers[3].file == expected
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    queued = {task.task.rpartition("/")[2]: task.answer for task in gateway.queue.tasks.values()}
    assert Answer.FromString(queued["explain"]).file == expected
    assert Answer.FromString(queued["name"]) == answers()[2]


async def test_a_repeated_hand_in_gets_the_first_answer(gateway: World) -> None:
    upload = await uploaded(gateway)
    first = await gateway.submissions.CreateSubmission(
        handing_in(upload.name, request_id="r1"), metadata=STUDENT
    )
    gateway.admissions.forget()
    again = handing_in(upload.name, request_id="r1")
    again.submission.answers[3].file.sha256 = b"whatever"
    second = await gateway.submissions.CreateSubmission(again, metadata=STUDENT)
    assert second.name == first.name
    assert len(gateway.storage.submissions) == 1


async def test_an_upload_is_handed_in_once(gateway: World) -> None:
    upload = await uploaded(gateway)
    await gateway.submissions.CreateSubmission(handing_in(upload.name), metadata=STUDENT)
    for request_id in ("", "another"):
        refusal = await refused(
            gateway.submissions.CreateSubmission(
                handing_in(upload.name, request_id=request_id), metadata=STUDENT
            )
        )
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "UPLOAD_NOT_READY",
        )
        assert refusal.metadata == {"upload": upload.name, "rule": "submission"}


async def test_the_upload_of_somebody_else_is_none_at_all(gateway: World) -> None:
    anns = await uploaded(gateway)
    unknown = f"{anns.name[:-6]}00-3ff"
    for name in (anns.name, unknown):
        refusal = await refused(
            gateway.submissions.CreateSubmission(handing_in(name), metadata=OTHER_STUDENT)
        )
        assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (FIELD,))
        assert refusal.rules == ("must be an upload of the author to this assignment",)


@pytest.mark.parametrize(
    "name", ["", "uploads/x", f"{PARENT}/submissions/x", "courses/net/assignments/a2/uploads/x"]
)
async def test_a_name_that_cannot_be_is_refused_by_its_field(gateway: World, name: str) -> None:
    refusal = await refused(gateway.submissions.CreateSubmission(handing_in(name), metadata=STUDENT))
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (FIELD,))


async def test_only_text_can_be_a_file(gateway: World) -> None:
    upload = await uploaded(gateway)
    request = create_request()
    request.submission.answers[0].CopyFrom(Answer(item="pick", file=Answer.File(upload=upload.name)))
    refusal = await refused(gateway.submissions.CreateSubmission(request, metadata=STUDENT))
    assert refusal.fields == ("submission.answers[0].file",)


async def test_what_is_not_as_announced_is_not_taken(gateway: World, clock: ManualClock) -> None:
    async def rule(upload: Upload) -> str:
        call = gateway.submissions.CreateSubmission(handing_in(upload.name), metadata=STUDENT)
        refusal = await refused(call)
        assert refusal.reason == "UPLOAD_NOT_READY"
        return refusal.metadata["rule"]

    upload = await announced(gateway)
    assert await rule(upload) == "object"
    for content, content_type, broken in (
        (TEXT + b"!", "text/plain", "size"),
        (TEXT.upper(), "text/plain", "sha256"),
        (TEXT, "text/html", "content_type"),
    ):
        gateway.storage.uploads.put(upload.name, content, content_type)
        assert await rule(upload) == broken
    assert await rule(await uploaded(gateway, item="name")) == "item"
    late = await uploaded(gateway)
    clock.now += FORM_SECONDS
    assert await rule(late) == "expire_time"


async def test_in_a_batch_each_stands_for_itself(gateway: World) -> None:
    good, missing = await uploaded(gateway), await announced(gateway)
    requests = [
        handing_in(good.name),
        handing_in(missing.name),
        create_request(),
        handing_in(good.name),
    ]
    for request in requests:
        request.submission.author = "ann"
    response = await gateway.submissions.BatchCreateSubmissions(
        BatchCreateSubmissionsRequest(parent=PARENT, requests=requests), metadata=STUDENT
    )
    kinds = [result.WhichOneof("result") for result in response.results]
    assert kinds == ["submission", "error", "submission", "error"]
    assert refusal_in(response.results[1].error).metadata["rule"] == "object"
    assert refusal_in(response.results[3].error).metadata["rule"] == "submission"
    assert len(gateway.storage.submissions) == 2


async def test_without_the_store_of_objects_all_the_rest_works(gateway: World) -> None:
    upload = await uploaded(gateway)
    gateway.storage.uploads.outage = True
    for call in (
        announced(gateway),
        gateway.submissions.CreateSubmission(handing_in(upload.name), metadata=STUDENT),
        gateway.submissions.CreateDownload(CreateDownloadRequest(name=upload.name), metadata=STUDENT),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.metadata) == (
            grpc.StatusCode.UNAVAILABLE,
            {"dependency": "objects"},
        )
    accepted = await gateway.submissions.CreateSubmission(create_request(), metadata=STUDENT)
    assert accepted.state == Submission.State.QUEUED
    assert key_of(accepted) in gateway.storage.submissions


async def test_a_file_is_read_by_its_author_and_by_instructors(gateway: World) -> None:
    upload, pending = await uploaded(gateway), await announced(gateway)

    async def download(name: str, metadata: Metadata) -> bytes:
        request = CreateDownloadRequest(name=name)
        return (await gateway.submissions.CreateDownload(request, metadata=metadata)).sha256

    assert await download(upload.name, STUDENT) == await download(upload.name, INSTRUCTOR) == SHA256
    other = upload.name.replace("assignments/a1", "assignments/a2")
    foreign = credential("instructor", "prof", tenant="other")
    for name, metadata in (
        (upload.name, OTHER_STUDENT),
        (upload.name, foreign),
        (other, STUDENT),
        (pending.name, STUDENT),
        (f"{PARENT}/uploads/x", STUDENT),
    ):
        refusal = await refused(download(name, metadata))
        assert (refusal.reason, refusal.metadata) == ("RESOURCE_NOT_FOUND", {"resource": name})
    assert (await refused(download("uploads/x", STUDENT))).fields == ("name",)
    assert (await refused(download(upload.name, OPERATOR))).reason == "ROLE_FORBIDDEN"
