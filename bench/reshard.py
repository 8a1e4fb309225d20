"""Buckets move from one shard to the other while they are written: how long a write waits at worst.

Callers write at a steady pace: each call creates or grades submissions in many buckets at once, most of
which are to move, so that hardly a bucket changes shards without a call that waits for it. A call is
repeated, for what was refused, until all of it is done; its time counts from the first try.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

from bench.stored import TENANT, Servers, Service, graded, new_submissions
from cinnabar.storage.v1 import shard_service_pb2 as shards_pb
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.names import BUCKETS, bucket_of

T = TypeVar("T")

BUCKETS_MOVED = 100
ROWS = 1000
LANES = 4
MOVING_ROWS = 20
OTHER_ROWS = 5
PAUSE_SECONDS = 0.05
BASELINE_SECONDS = 15.0
NAMES = ("reshard_longest_write_stall_ms", "reshard_longest_write_at_rest_ms", "reshard_seconds")
_POLL_SECONDS = 0.2
_CALL_SECONDS = 60.0
_MOVE_SECONDS = 900.0
_CREATED = pb.CreateSubmissionsResponse.Result
_COMMIT = pb.CommitOutcomesResponse
_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Load:
    """Callers that write, and the longest that one call of theirs took."""

    def __init__(self, service: Service, moving: Sequence[str], others: Sequence[str]) -> None:
        """``moving`` and ``others``: authors, of buckets that are to move and that are not."""
        self._service = service
        self._moving = moving
        self._others = others
        self._longest = 0.0

    def longest_ms(self) -> float:
        """Of all calls that ended since the last time."""
        longest, self._longest = self._longest, 0.0
        return longest * 1000

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Inside of the block; what was begun is ended before it is left."""
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(LANES):
                group.create_task(self._lane(stopped))
            try:
                yield
            finally:
                stopped.set()

    async def _lane(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            authors = random.choices(self._moving, k=MOVING_ROWS) + random.choices(self._others, k=OTHER_ROWS)
            submissions = new_submissions(len(authors), authors)
            await self._timed(submissions, self._create)
            await self._timed(list(map(graded, submissions)), self._commit)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _timed(self, items: list[T], call: Callable[[list[T]], Awaitable[list[T]]]) -> None:
        began = time.perf_counter()
        async with asyncio.timeout(_CALL_SECONDS):
            while items:
                try:
                    items = await call(items)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _LATER:
                        raise
        self._longest = max(self._longest, time.perf_counter() - began)

    async def _create(self, submissions: list[pb.NewSubmission]) -> list[pb.NewSubmission]:
        """Returns those that are to be tried again."""
        answer = await self._service.writer.CreateSubmissions(
            pb.CreateSubmissionsRequest(submissions=submissions)
        )
        statuses = [result.status for result in answer.results]
        return _again(submissions, statuses, _CREATED.UNAVAILABLE, (_CREATED.CREATED, _CREATED.DUPLICATE))

    async def _commit(self, outcomes: list[pb.FencedOutcome]) -> list[pb.FencedOutcome]:
        answer = await self._service.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=outcomes))
        return _again(
            outcomes, answer.results, _COMMIT.UNAVAILABLE, (_COMMIT.COMMITTED, _COMMIT.ALREADY_GRADED)
        )


def _again(items: list[T], statuses: Sequence[int], later: int, done: Sequence[int]) -> list[T]:
    if not set(statuses) <= {later, *done}:
        raise RuntimeError("a write was lost")
    return [item for item, status in zip(items, statuses, strict=True) if status == later]


def _authors() -> dict[int, str]:
    """One of each bucket."""
    found: dict[int, str] = {}
    for number in itertools.count():
        author = f"author-{number}"
        found.setdefault(bucket_of(TENANT, author), author)
        if len(found) == BUCKETS:
            return found
    raise AssertionError


async def measure(servers: Servers, scale: float) -> dict[str, Sequence[float]]:
    """The longest write while buckets move, and before; the seconds from the plan to the last clean-up."""
    count = max(4, int(BUCKETS_MOVED * scale))
    databases = await servers.databases("reshard")
    async with servers.service(databases) as service:
        await databases[0].fill(1, count * max(20, int(ROWS * scale)), range(count))
        authors = _authors()
        load = Load(
            service,
            [authors[bucket] for bucket in range(count)],
            [authors[bucket] for bucket in range(count, BUCKETS)],
        )
        async with load.running():
            await asyncio.sleep(max(0.5, BASELINE_SECONDS * scale / 5))  # warm up
            load.longest_ms()
            await asyncio.sleep(max(2.0, BASELINE_SECONDS * scale))
            at_rest = load.longest_ms()
            began = time.perf_counter()
            owned = await _moved(service, count)
            seconds = time.perf_counter() - began
            stalled = load.longest_ms()
    if owned != BUCKETS // len(databases) + count:
        raise RuntimeError("buckets did not move")
    return dict(zip(NAMES, ([stalled], [at_rest], [seconds]), strict=True))


async def _moved(service: Service, count: int) -> int:
    """Moves the first ``count`` buckets to the last shard. Returns how many it owns then."""
    plan = shards_pb.PlanMovesRequest(buckets=range(count), to_shard=1, actor="bench")
    async with asyncio.timeout(_MOVE_SECONDS):
        status = await service.shard_writer.PlanMoves(plan)
        while status.moves:
            await asyncio.sleep(_POLL_SECONDS)
            status = await service.shard_reader.GetShards(shards_pb.GetShardsRequest())
    return status.shards[1].buckets
