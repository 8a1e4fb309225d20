"""Handing in by stream."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.consistency import TOKEN_KEY
from cinnabar_gateway.records import Committed, NewSubmission
from tests.support.gateway_world import (
    INSTRUCTOR,
    KEYS,
    PARENT,
    TENANT,
    World,
    create_request,
    refusal_in,
    refusal_of,
    world,
)
from tests.support.waiting import until

Request = pb.StreamCreateSubmissionsRequest


def message(batch_id: int, *authors: str) -> Request:
    """A message of good submissions."""
    return Request(batch_id=batch_id, requests=[create_request(author=author) for author in authors])


async def test_each_message_is_acknowledged_with_a_result_per_submission(gateway: World) -> None:
    call = gateway.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
    mixed = message(2, "cid", "dan", "eve")
    mixed.requests[0].submission.answers[0].text = "tcp"
    mixed.requests[1].parent = PARENT + "x"
    for one in (message(1, "ann", "bob"), mixed):
        await call.write(one)
    await call.done_writing()
    acks = {ack.batch_id: ack async for ack in call}
    assert [result.submission.author for result in acks[1].results] == ["ann", "bob"]
    errors = [refusal_in(result.error) for result in acks[2].results[:2]]
    assert errors[0].fields == ("submission.answers[0].text",)
    assert (errors[1].code, errors[1].reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert acks[2].results[2].submission.author == "eve"
    assert {one.author for one in gateway.storage.submissions.values()} == {"ann", "bob", "eve"}
    tokens = [acks[number].consistency_token for number in (1, 2)]
    last = str(dict(await call.trailing_metadata())[TOKEN_KEY])
    assert last in tokens
    assert KEYS.decode(TENANT, tokens) == KEYS.decode(TENANT, [last])


async def test_what_was_read_before_a_bad_message_is_answered_first(gateway: World) -> None:
    call = gateway.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
    await call.write(message(1, "ann"))
    await call.write(Request(batch_id=2))
    ack = await call.read()
    assert isinstance(ack, pb.StreamCreateSubmissionsResponse)
    assert ack.batch_id == 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    refusal = refusal_of(raised.value)
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ("requests",))
    assert len(gateway.storage.submissions) == 1


class HeldStorage(MemoryStorage):
    """A storage that commits nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.arrived = 0

    async def create_submissions(self, new: Sequence[NewSubmission]) -> list[Committed]:
        """See SubmissionStore."""
        self.arrived += len(new)
        await self.go.wait()
        return await super().create_submissions(new)


async def test_a_stream_is_not_read_further_than_its_window() -> None:
    storage = HeldStorage()
    async with world(storage=storage, stream_window=3, commit_lanes=20, commit_batch=1) as made:
        await made.assignment()
        call = made.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
        for number in range(8):
            await call.write(message(number, f"s{number}"))
        await call.done_writing()
        await until(lambda: storage.arrived == 3, "the window is full")
        # Another call goes through the same gateway meanwhile, so a fourth message had its chance.
        other = asyncio.ensure_future(
            made.submissions.CreateSubmission(create_request(author="z"), metadata=INSTRUCTOR)
        )
        await until(lambda: storage.arrived >= 4, "the other call arrives")
        assert storage.arrived == 4
        storage.go.set()
        assert {ack.batch_id async for ack in call} == set(range(8))
        await other
        assert len(storage.submissions) == 9
