"""Watching a submission until it is done."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.records import Submission, SubmissionKey
from tests.support.gateway_world import (
    STUDENT,
    Metadata,
    World,
    key_of,
    refusal_of,
    token_for,
    world,
)
from tests.support.waiting import until

State = pb.Submission.State
ITEMS = ("pick", "count", "name", "explain")


def watch(
    gateway: World, submission: pb.Submission, metadata: Metadata = STUDENT
) -> "grpc.aio.UnaryStreamCall[pb.WatchSubmissionRequest, pb.WatchSubmissionResponse]":
    """An open watch."""
    return gateway.submissions.WatchSubmission(
        pb.WatchSubmissionRequest(name=submission.name), metadata=metadata
    )


async def shown(
    call: "grpc.aio.UnaryStreamCall[pb.WatchSubmissionRequest, pb.WatchSubmissionResponse]",
) -> pb.Submission:
    """What the watch shows next."""
    response = await call.read()
    assert isinstance(response, pb.WatchSubmissionResponse)
    return response.submission


async def test_a_watch_shows_each_change_and_ends_with_the_final_state(gateway: World) -> None:
    created = await gateway.submission()
    call = watch(gateway, created)
    assert (await shown(call)).state == State.QUEUED
    for number, item in enumerate(ITEMS, 1):
        gateway.grade(created, item)
        state = await shown(call)
        assert state.score == number
        assert state.state == (State.GRADED if number == len(ITEMS) else State.GRADING)
    assert await call.read() is grpc.aio.EOF
    await until(lambda: gateway.gateway.hub.watches == 0, "the watch is forgotten")
    assert not next(iter(gateway.changes.open)).followed


async def test_a_watch_of_what_is_done_shows_it_once(gateway: World) -> None:
    created = await gateway.submission()
    for item in ITEMS:
        gateway.grade(created, item)
    states = [response.submission.state async for response in watch(gateway, created)]
    assert states == [State.GRADED]


async def test_a_cancelled_submission_ends_its_watch(gateway: World) -> None:
    created = await gateway.submission()
    call = watch(gateway, created)
    await shown(call)
    await gateway.submissions.CancelSubmission(
        pb.CancelSubmissionRequest(name=created.name), metadata=STUDENT
    )
    gateway.changes.announce([key_of(created).submission_id])
    assert (await shown(call)).state == State.CANCELLED
    assert await call.read() is grpc.aio.EOF


class CountingStorage(MemoryStorage):
    """Counts reads; may show the past or be away."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[int, Positions]] = []
        self.past: list[Submission] | None = None
        self.away = False

    async def get_submissions(
        self, keys: Sequence[SubmissionKey], min_positions: Positions
    ) -> list[Submission]:
        """See SubmissionStore."""
        self.read.append((len(keys), min_positions))
        if self.away:
            raise DependencyUnavailable("storage")
        return self.past if self.past is not None else await super().get_submissions(keys, min_positions)


async def test_many_watchers_of_one_submission_share_its_reads() -> None:
    storage = CountingStorage()
    async with world(storage=storage) as made:
        await made.assignment()
        created = await made.submission()
        calls = [watch(made, created) for _ in range(30)]
        assert {(await shown(call)).state for call in calls} == {State.QUEUED}
        before = len(storage.read)
        positions = made.grade(created, "name")
        assert {(await shown(call)).state for call in calls} == {State.GRADING}
        assert storage.read[before:] == [(1, positions)]


async def test_a_lagging_replica_takes_nobody_back() -> None:
    storage = CountingStorage()
    async with world(storage=storage) as made:
        await made.assignment()
        created = await made.submission()
        past = list(storage.submissions.values())
        call = watch(made, created)
        await shown(call)
        made.grade(created, "name")
        assert (await shown(call)).score == 1
        storage.past = past
        reads = len(storage.read)
        made.changes.announce([key_of(created).submission_id])
        await until(lambda: len(storage.read) > reads, "the past is read")
        storage.past = None
        made.grade(created, "pick")
        assert (await shown(call)).score == 2


async def test_a_lost_announcement_is_made_up_for() -> None:
    async with world(watch_reread_seconds=0.02) as made:
        await made.assignment()
        created = await made.submission()
        call = watch(made, created)
        await shown(call)
        made.storage.grade(key_of(created), "name", score=1, grade=b"")
        assert (await shown(call)).state == State.GRADING


async def test_a_broken_stream_is_opened_again_and_what_was_missed_is_read(gateway: World) -> None:
    created = await gateway.submission()
    call = watch(gateway, created)
    await shown(call)
    first = next(iter(gateway.changes.open))
    gateway.changes.break_off()
    await until(lambda: first not in gateway.changes.open, "the stream is broken")
    gateway.storage.grade(key_of(created), "name", score=1, grade=b"")
    assert (await shown(call)).state == State.GRADING
    gateway.grade(created, "pick")
    assert (await shown(call)).score == 2


async def test_an_outage_of_storage_is_waited_out_by_those_who_watch() -> None:
    storage = CountingStorage()
    async with world(storage=storage) as made:
        await made.assignment()
        created = await made.submission()
        call = watch(made, created)
        await shown(call)
        storage.away = True
        reads = len(storage.read)
        made.grade(created, "name")
        await until(lambda: len(storage.read) > reads, "the read fails")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await watch(made, await _other(made)).read()
        assert refusal_of(raised.value).reason == "DEPENDENCY_UNAVAILABLE"
        storage.away = False
        made.grade(created, "pick")
        assert (await shown(call)).score == 2


async def _other(made: World) -> pb.Submission:
    return await made.submission(metadata=STUDENT)


async def test_a_watch_with_a_token_shows_no_less(gateway: World) -> None:
    created = await gateway.submission()
    call = watch(gateway, created)
    await shown(call)
    positions = gateway.storage.grade(key_of(created), "name", score=1, grade=b"")
    late = watch(gateway, created, STUDENT + token_for(positions))
    assert (await shown(late)).state == State.GRADING
    assert (await shown(call)).state == State.GRADING


async def test_there_are_no_more_watches_than_the_bound() -> None:
    async with world(max_watches=1) as made:
        await made.assignment()
        created = await made.submission()
        call = watch(made, created)
        await shown(call)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await watch(made, created).read()
        refusal = refusal_of(raised.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert refusal.retry_after is not None
        assert refusal.metadata == {"queue": "gateway.watches"}
        call.cancel()
        await until(lambda: made.gateway.hub.watches == 0, "the first watch ends")


async def test_a_gateway_that_stops_sends_its_watchers_away_at_once() -> None:
    async with world(grace_seconds=30.0) as made:
        await made.assignment()
        call = watch(made, await made.submission())
        await shown(call)
        asyncio.get_running_loop().call_soon(made.gateway.hub.drain)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        refusal = refusal_of(raised.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
