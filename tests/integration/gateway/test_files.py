"""The path of a file: announced, sent past the suite, handed in, fetched by a grader; and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import pytest_asyncio

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.grader.v1.grade_pb2 import Answer, Artifact
from cinnabar_common import presigned
from cinnabar_grader.adapters.scheduler_stream import SchedulerStream, StreamSettings
from cinnabar_grader.convert import CompiledItems
from cinnabar_grader.graders import ANSWER, CriterionScore, Graded, Outcome, Provenance, Task
from cinnabar_grader.graders import Artifact as NewArtifact
from cinnabar_grader.pipeline import Lane
from cinnabar_local import sql
from tests.support.gateway_suite import PARENT, Real, create_request, real_gateway
from tests.support.gateway_world import INSTRUCTOR, OTHER_STUDENT, STUDENT, Metadata, refusal_of, refused
from tests.support.objects import facts_of
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on
from tests.support.waiting import until

RIGHT = "\ufeffThree-way  handshake\r\n".encode()
State = pb.Submission.State


@pytest_asyncio.fixture
async def real(
    migrated_shards: list[ShardUrls], valkey_url: str, s3_settings: dict[str, Any]
) -> AsyncGenerator[Real]:
    """A gateway on real storage with files, and one assignment; scheduler and grader are up to the test."""
    async with (
        storage_on(migrated_shards, **s3_settings) as storage,
        real_gateway(storage.address, valkey_url) as made,
    ):
        await made.assignment()
        yield made


async def uploaded(real: Real, content: bytes = RIGHT, metadata: Metadata = STUDENT) -> pb.Upload:
    facts = facts_of(content)
    upload = pb.Upload(
        item="name",
        content_type=facts.content_type,
        size_bytes=facts.size_bytes,
        sha256=facts.sha256,
    )
    made = await real.submissions.CreateUpload(
        pb.CreateUploadRequest(parent=PARENT, upload=upload), metadata=metadata
    )
    fields = [(field.name, field.value) for field in made.fields]
    await asyncio.to_thread(presigned.send, made.url, fields, content, seconds=5)
    return made


def handing_in(upload: pb.Upload, request_id: str = "") -> pb.CreateSubmissionRequest:
    request = create_request(request_id=request_id)
    request.submission.answers[2].CopyFrom(Answer(item="name", file=Answer.File(upload=upload.name)))
    return request


async def read(real: Real, name: str, metadata: Metadata) -> bytes:
    link = await real.submissions.CreateDownload(pb.CreateDownloadRequest(name=name), metadata=metadata)
    return await asyncio.to_thread(
        presigned.fetch, link.url, size_bytes=link.size_bytes, sha256=link.sha256, seconds=5
    )


async def graded(real: Real, name: str) -> pb.Submission:
    """The submission once all of it is graded."""
    found = pb.Submission()

    async def done() -> bool:
        nonlocal found
        found = await real.submissions.GetSubmission(pb.GetSubmissionRequest(name=name), metadata=INSTRUCTOR)
        return found.state == State.GRADED

    await until(done, "it is graded")
    return found


async def test_a_file_is_graded_as_what_it_says(real: Real) -> None:
    async with real.scheduler(), real.grader():
        right, garbled = await uploaded(real), await uploaded(real, b"\xff\xfe\x00")
        first = await real.submissions.CreateSubmission(handing_in(right, "r1"), metadata=STUDENT)
        again = await real.submissions.CreateSubmission(handing_in(right, "r1"), metadata=STUDENT)
        second = await real.submissions.CreateSubmission(handing_in(garbled), metadata=STUDENT)
        assert again.name == first.name
        shown = await graded(real, first.name)
        assert shown.results[2].grade.score == 1
        assert shown.answers[2].file.sha256 == facts_of(RIGHT).sha256
        not_text = (await graded(real, second.name)).results[2].grade
        assert (not_text.score, list(not_text.flags)) == (0, ["NOT_TEXT"])
        assert await read(real, right.name, STUDENT) == RIGHT
        assert await read(real, right.name, INSTRUCTOR) == RIGHT
        refusal = await refused(read(real, right.name, OTHER_STUDENT))
        assert refusal.reason == "RESOURCE_NOT_FOUND"
        refusal = await refused(real.submissions.CreateSubmission(handing_in(right), metadata=STUDENT))
        assert refusal.metadata == {"upload": right.name, "rule": "submission"}


async def test_many_at_once_want_one_upload_and_one_gets_it(real: Real) -> None:
    upload = await uploaded(real)
    calls = [real.submissions.CreateSubmission(handing_in(upload), metadata=STUDENT) for _ in range(8)]
    outcomes = await asyncio.gather(*map(reason_of, calls))
    assert outcomes.count("") == 1
    assert set(outcomes) == {"", "UPLOAD_NOT_READY"}


async def reason_of(call: Awaitable[object]) -> str:
    """The reason of a refusal, "" for success."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason
    return ""


class Scribe:
    """A grader that writes down what it read."""

    name = "scribe"
    version = "1"
    queue = "text"
    batch_limit = 10

    def blocking(self, batch: Sequence[Task]) -> bool:
        return False

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        return [self._grade(task) for task in batch]

    def _grade(self, task: Task) -> Outcome:
        notes = f"It says: {task.answer}".encode()
        return Graded(
            task.token,
            1.0,
            1.0,
            [CriterionScore(ANSWER, 1.0, 1.0)],
            "see the notes",
            Provenance(self.name, self.version),
            artifacts=[NewArtifact("notes", "text/plain", notes)],
        )


@asynccontextmanager
async def scribe(real: Real) -> AsyncGenerator[None]:
    """The grader of the queue "text", at work."""
    with ThreadPoolExecutor(2) as executor:
        stream = SchedulerStream(
            real.scheduler_target,
            worker="scribe",
            settings=StreamSettings(
                version="1",
                credits={"text": 4},
                compiled=CompiledItems(),
                transfers=executor,
            ),
        )
        stream.serve("text", partial(Lane, Scribe(), executor=executor))
        async with asyncio.TaskGroup() as group:
            group.create_task(stream.run())
            yield
            await stream.drain(5)


async def test_an_artifact_of_a_grader_is_read_by_who_may_read_the_grade(
    real: Real, migrated_shards: list[ShardUrls]
) -> None:
    upload = await uploaded(real)
    async with real.scheduler(), scribe(real):
        made = await real.submissions.CreateSubmission(handing_in(upload), metadata=STUDENT)
        found = pb.Submission()

        async def has_grade() -> bool:
            nonlocal found
            found = await real.submissions.GetSubmission(
                pb.GetSubmissionRequest(name=made.name), metadata=STUDENT
            )
            return found.results[2].HasField("grade")

        await until(has_grade, "the text is graded")
    [artifact] = found.results[2].grade.artifacts
    notes = b"It says: " + RIGHT.removeprefix(b"\xef\xbb\xbf")
    facts = facts_of(notes)
    assert artifact == Artifact(
        upload=artifact.upload,
        title="notes",
        content_type="text/plain",
        size_bytes=facts.size_bytes,
        sha256=facts.sha256,
    )
    assert (
        await read(real, artifact.upload, STUDENT) == await read(real, artifact.upload, INSTRUCTOR) == notes
    )
    refusal = await refused(read(real, artifact.upload, OTHER_STUDENT))
    assert refusal.reason == "RESOURCE_NOT_FOUND"
    rows: list[Any] = []
    for shard in migrated_shards:
        async with sql.connected(shard.primary_url) as connection:
            rows += await connection.fetch("SELECT kind, state, submission_id FROM uploads ORDER BY kind")
    submission_id = made.name.rpartition("/")[2]
    assert [tuple(row) for row in rows] == [(1, 2, submission_id), (2, 2, submission_id)]


async def test_a_file_that_cannot_be_fetched_waits_and_others_do_not(
    real: Real, migrated_shards: list[ShardUrls]
) -> None:
    upload = await uploaded(real)
    made = await real.submissions.CreateSubmission(handing_in(upload), metadata=STUDENT)
    for shard in migrated_shards:
        async with sql.connected(shard.primary_url) as connection:
            await connection.execute("UPDATE uploads SET object_key = object_key || '-moved'")
    async with real.scheduler(), real.grader():
        plain = await real.submissions.CreateSubmission(create_request(), metadata=OTHER_STUDENT)
        assert (await graded(real, plain.name)).score > 0
        waiting = await real.submissions.GetSubmission(
            pb.GetSubmissionRequest(name=made.name), metadata=STUDENT
        )
        assert not waiting.results[2].HasField("grade")
        for shard in migrated_shards:
            async with sql.connected(shard.primary_url) as connection:
                await connection.execute("UPDATE uploads SET object_key = replace(object_key, '-moved', '')")
        assert (await graded(real, made.name)).results[2].grade.score == 1
