"""Two storage processes with one Redis: what one writes, the other does not answer with from before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from statistics import median

import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from cinnabar.storage.v1 import records_pb2
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.type.v1 import position_pb2
from cinnabar_common.channels import channel
from cinnabar_local.ports import Ports
from tests.support.servers import PostgresServers, ShardUrls, ValkeyServer
from tests.support.storage_records import TENANT, graded, key, new_submission, revision_id
from tests.support.storage_service import Storage, storage_on
from tests.support.storage_sql import replay_paused, replicated
from tests.support.tcp_proxy import Mode, TcpProxy
from tests.support.waiting import until

BOUND = 1.0
USUAL = 0.1
Positions = list[position_pb2.Position]


@dataclass
class Pair:
    """A process that writes and one that reads, each with its own way to Redis."""

    writer: Storage
    reader: Storage
    ways: list[TcpProxy]
    metrics: str

    async def number(self, name: str, **labels: str) -> float:
        """One of the reader's numbers; 0 when it is not there."""
        host, _, port = self.metrics.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        _, _, text = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def go(self, mode: Mode) -> None:
        """The ways to Redis, from now on."""
        for way in self.ways:
            way.set_mode(mode)

    async def in_step(self) -> None:
        """Returns when the reader hears what is sent."""

        async def hears() -> bool:
            return await self.number("cinnabar_cache_in_step") == 1

        await until(hears, "the reader is in step")


@pytest_asyncio.fixture(scope="module")
async def pair(storage_shards: list[ShardUrls], valkey_server: ValkeyServer) -> AsyncGenerator[Pair]:
    """On primaries alone, so that what is read past the cache is always the newest."""
    async with AsyncExitStack() as exits:
        primaries = [replace(shard, replica_urls=()) for shard in storage_shards]
        yield await started(exits, primaries, valkey_server)


async def started(exits: AsyncExitStack, shards: list[ShardUrls], valkey: ValkeyServer) -> Pair:
    """Two processes on the shards."""
    url = valkey.url_of(0)
    credential, _, address = url.removesuffix("/0").rpartition("@")
    ways = [TcpProxy(address) for _ in range(2)]
    for way in ways:
        exits.push_async_callback(way.close)
    metrics = f"127.0.0.1:{Ports().of('metrics')}"
    urls = [f"{credential}@{way.address}/0" for way in ways]
    writer = await exits.enter_async_context(storage_on(shards, redis_url=urls[0]))
    reader = await exits.enter_async_context(storage_on(shards, redis_url=urls[1], metrics_listen=metrics))
    pair = Pair(writer, reader, ways, metrics)
    await pair.in_step()
    return pair


@pytest_asyncio.fixture(autouse=True)
async def whole(pair: Pair) -> AsyncGenerator[None]:
    yield
    pair.go(Mode.OPEN)
    await pair.in_step()


async def create(storage: Storage, *, items: tuple[str, ...] = ("q1",)) -> pb.NewSubmission:
    submission = new_submission(items=items)
    response = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[submission]))
    assert response.results[0].status == pb.CreateSubmissionsResponse.Result.Status.CREATED
    return submission


async def grade(storage: Storage, submission: pb.NewSubmission, item: str = "q1") -> Positions:
    response = await storage.writer.CommitOutcomes(
        pb.CommitOutcomesRequest(outcomes=[graded(submission, item=item)])
    )
    assert list(response.results) == [pb.CommitOutcomesResponse.Result.COMMITTED]
    return list(response.positions)


async def grades(storage: Storage, submission: pb.NewSubmission, positions: Positions | None = None) -> int:
    """How many grades a read shows."""
    response = await storage.reader.GetSubmissions(
        pb.GetSubmissionsRequest(submissions=[key(submission)], min_positions=positions or [])
    )
    [found] = response.submissions
    return len(found.grades)


async def cached(storage: Storage, submission: pb.NewSubmission, shown: int = 0) -> None:
    """The read that fills the cache."""
    assert await grades(storage, submission) == shown


async def seconds_until(storage: Storage, submission: pb.NewSubmission, shown: int) -> float:
    """How long after now the last read began that did not show so many grades."""
    loop = asyncio.get_running_loop()
    start, last = loop.time(), loop.time()
    async with asyncio.timeout(20):
        while True:
            began = loop.time()
            if await grades(storage, submission) >= shown:
                return last - start
            last = began


async def test_a_single_read_is_answered_from_the_cache(pair: Pair) -> None:
    submission = await create(pair.writer)
    await cached(pair.reader, submission)
    hits = await pair.number("cinnabar_cache_hits_total", kind="submission", level="process")
    for _ in range(10):
        assert await grades(pair.reader, submission) == 0
    now = await pair.number("cinnabar_cache_hits_total", kind="submission", level="process")
    assert now > hits
    assert 0 < await pair.number("cinnabar_cache_hit_ratio", kind="submission", level="process") < 1
    assert await pair.number("cinnabar_cache_entries", content="changing") > 0
    shared = await pair.number("cinnabar_cache_hits_total", kind="submission", level="shared")

    async def found_what_the_other_read() -> bool:
        another = await create(pair.writer)
        await cached(pair.writer, another)
        await cached(pair.reader, another)
        return await pair.number("cinnabar_cache_hits_total", kind="submission", level="shared") > shared

    await until(found_what_the_other_read, "an entry that another process has put into Redis")


async def test_an_outage_of_redis_is_told_and_nothing_else(pair: Pair) -> None:
    async with channel(pair.reader.address) as opened:
        health = health_pb2_grpc.HealthStub(opened)

        async def serving(name: str) -> bool:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            return answer.status == health_pb2.HealthCheckResponse.SERVING

        async def working() -> bool:
            return await serving("cache")

        async def out_of_step() -> bool:
            return await pair.number("cinnabar_cache_in_step") == 0

        async def degraded() -> bool:
            return not await serving("cache")

        await until(working, "health has seen that the cache is in step")
        pair.go(Mode.CUT)
        submission = await create(pair.writer, items=("q1", "q2"))
        await cached(pair.reader, submission)
        await grade(pair.writer, submission)
        await until(out_of_step, "nothing is heard any more")
        await until(degraded, "health says so")
        assert await serving("")
    assert await pair.number("cinnabar_cache_outages_total") > 0
    await grade(pair.writer, submission, "q2")
    assert await seconds_until(pair.reader, submission, 2) <= BOUND


async def test_what_one_process_writes_the_other_shows_at_once(pair: Pair) -> None:
    gaps = await pair.number("cinnabar_cache_gaps_total")
    delays: list[float] = []
    for _ in range(15):
        submission = await create(pair.writer)
        await cached(pair.reader, submission)
        await grade(pair.writer, submission)
        assert await grades(pair.writer, submission) == 1, "the writer itself, at once"
        delays.append(await seconds_until(pair.reader, submission, 1))
    assert max(delays) <= BOUND
    assert median(delays) <= USUAL
    assert await pair.number("cinnabar_cache_invalidations_total", direction="heard") >= 15
    assert await pair.number("cinnabar_cache_gaps_total") == gaps


async def test_a_read_with_the_position_of_a_write_shows_it(pair: Pair) -> None:
    pair.go(Mode.BLACKHOLE)
    for _ in range(10):
        submission = await create(pair.writer)
        await cached(pair.reader, submission)
        assert await grades(pair.reader, submission, await grade(pair.writer, submission)) == 1


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.BLACKHOLE])
@pytest.mark.parametrize("whose", [(0,), (1,)], ids=["writer", "reader"])
async def test_without_messages_no_read_is_older_than_the_bound(
    pair: Pair, mode: Mode, whose: tuple[int, ...]
) -> None:
    submission = await create(pair.writer)
    await cached(pair.reader, submission)
    for index in whose:
        pair.ways[index].set_mode(mode)
    await grade(pair.writer, submission)
    assert await seconds_until(pair.reader, submission, 1) <= BOUND
    for _ in range(3):
        assert await grades(pair.reader, submission) == 1, "what was shown once stays"


async def test_the_current_revision_of_an_assignment(pair: Pair) -> None:
    record = records_pb2.AssignmentRecord(
        tenant=TENANT, course="net", assignment="cached", revision_id=revision_id(), spec=b"one"
    )

    async def read() -> bytes:
        response = await pair.reader.reader.GetAssignments(
            pb.GetAssignmentsRequest(
                keys=[pb.GetAssignmentsRequest.Key(tenant=TENANT, course="net", assignment="cached")]
            )
        )
        return response.assignments[0].spec if response.assignments else b""

    assert await read() == b""
    await pair.writer.writer.CreateAssignment(pb.CreateAssignmentRequest(assignment=record))
    assert await read() == b"one", "that there was none is not remembered"
    record.revision_id, record.spec = revision_id(), b"two"
    await pair.writer.writer.UpdateAssignment(pb.UpdateAssignmentRequest(assignment=record))

    async def shown() -> bool:
        return await read() == b"two"

    await until(shown, "the new revision")
    key = pb.RevisionKey(tenant=TENANT, revision_id=record.revision_id)
    for storage in (pair.writer, pair.reader, pair.reader):
        response = await storage.reader.GetRevisions(pb.GetRevisionsRequest(revisions=[key]))
        assert [found.spec for found in response.revisions] == [b"two"]


async def test_a_lagging_replica_does_not_bring_the_past_back(
    storage_shards: list[ShardUrls], valkey_server: ValkeyServer, postgres_servers: PostgresServers
) -> None:
    async with AsyncExitStack() as exits:
        pair = await started(exits, storage_shards, valkey_server)
        submission = await create(pair.writer)
        await replicated(postgres_servers)
        await cached(pair.reader, submission)
        async with replay_paused(postgres_servers):
            positions = await grade(pair.writer, submission)
            refused = await pair.number("cinnabar_cache_refused_total")

            async def reads_the_past_and_does_not_keep_it() -> bool:
                assert await grades(pair.reader, submission) == 0
                return await pair.number("cinnabar_cache_refused_total") > refused

            await until(reads_the_past_and_does_not_keep_it, "a change that the reader has heard of")
            assert await grades(pair.reader, submission, positions) == 1
        await replicated(postgres_servers)
        assert await grades(pair.reader, submission) == 1
