"""Grades by people, history and audit through gRPC, on Postgres, with the seals that follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio

from cinnabar.storage.v1 import review_service_pb2 as pb
from cinnabar.storage.v1 import storage_service_pb2
from cinnabar.storage.v1.review_service_pb2_grpc import (
    StorageReviewReaderServiceStub,
    StorageReviewWriterServiceStub,
)
from cinnabar_common.channels import channel
from tests.support.storage_records import graded, key, new_submission
from tests.support.storage_service import Storage
from tests.support.waiting import until


@pytest_asyncio.fixture
async def opened(storage: Storage) -> AsyncGenerator[grpc.aio.Channel]:
    async with channel(storage.address) as connection:
        yield connection


def override(submission: storage_service_pb2.NewSubmission, **changes: object) -> pb.OverrideGradeRequest:
    request = pb.OverrideGradeRequest(
        submission=key(submission),
        item_id="q1",
        score=2.0,
        grade=b"by hand",
        actor="instructor/ann",
        reason="a better reading",
    )
    for name, value in changes.items():
        setattr(request, name, value)
    return request


async def test_what_people_did_is_read_and_sealed(storage: Storage, opened: grpc.aio.Channel) -> None:
    writer, reader = StorageReviewWriterServiceStub(opened), StorageReviewReaderServiceStub(opened)
    submissions = [new_submission(tenant="reviews") for _ in range(8)]  # on both shards
    create = storage_service_pb2.CreateSubmissionsRequest(submissions=submissions)
    await storage.writer.CreateSubmissions(create)
    commit = storage_service_pb2.CommitOutcomesRequest(outcomes=map(graded, submissions))

    async def override_one(submission: storage_service_pb2.NewSubmission) -> pb.OverrideGradeResponse:
        return await writer.OverrideGrade(override(submission))

    _, answers = await asyncio.gather(
        storage.writer.CommitOutcomes(commit), asyncio.gather(*map(override_one, submissions))
    )
    assert [answer.applied for answer in answers] == [True] * 8
    for submission, answer in zip(submissions, answers, strict=True):
        assert (await writer.OverrideGrade(override(submission))).applied is False
        listing = pb.ListGradingsRequest(
            submission=key(submission), limit=10, min_positions=[answer.position]
        )
        gradings = (await reader.ListGradings(listing)).gradings
        assert [one.grade.generation for one in gradings] == list(range(1, answer.generation + 1))
        assert (gradings[-1].current, gradings[-1].grade.reason) == (True, "a better reading")
        assert gradings[-1].grade.kind == gradings[-1].grade.Kind.OVERRIDDEN

    async def events(submission: storage_service_pb2.NewSubmission) -> list[pb.AuditEventRecord]:
        found = await reader.ListAuditEvents(
            pb.ListAuditEventsRequest(
                submission=key(submission), limit=10, min_positions=[one.position for one in answers]
            )
        )
        return list(found.events)

    async def sealed() -> bool:
        found = [event for submission in submissions for event in await events(submission)]
        return len(found) >= 8 and all(event.sealed for event in found)

    await until(sealed, "all events are under seals")
    for shard in range(2):
        check = await reader.CheckSeals(pb.CheckSealsRequest(shard=shard))
        assert (list(check.breaks), check.more, check.seals > 0) == ([], False, True)
        assert check.link.hash


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"item_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"actor": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"score": float("nan")}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"reason": "a\0b"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"item_id": "q7"}, grpc.StatusCode.NOT_FOUND),
        ({"etag": '"stale"'}, grpc.StatusCode.ABORTED),
    ],
)
async def test_bad_overrides_change_nothing(
    storage: Storage, opened: grpc.aio.Channel, changes: dict[str, object], code: grpc.StatusCode
) -> None:
    submission = new_submission(tenant="reviews")
    await storage.writer.CreateSubmissions(
        storage_service_pb2.CreateSubmissionsRequest(submissions=[submission])
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await StorageReviewWriterServiceStub(opened).OverrideGrade(override(submission, **changes))
    assert raised.value.code() is code
    reader = StorageReviewReaderServiceStub(opened)
    listing = pb.ListGradingsRequest(submission=key(submission), limit=10)
    assert not (await reader.ListGradings(listing)).gradings
    for bad in (pb.CheckSealsRequest(shard=2), pb.CheckSealsRequest(shard=-1)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await reader.CheckSeals(bad)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
