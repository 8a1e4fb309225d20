"""Ten shards share everything and answer as one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from cinnabar.storage.v1 import shard_service_pb2, shard_service_pb2_grpc
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.channels import channel
from cinnabar_local import sql
from cinnabar_storage.app import migrate_all
from tests.support.servers import PostgresServers, ShardUrls
from tests.support.storage_records import ASSIGNMENT, COURSE, graded, new_submission
from tests.support.storage_service import config_for, storage_on
from tests.support.storage_sql import total

_SHARDS = 10
_AUTHORS = 200


@asynccontextmanager
async def ten_databases(servers: PostgresServers) -> AsyncGenerator[list[ShardUrls]]:
    """Migrated databases on one server, which stand for ten servers."""
    primary = servers.shards[0].primary
    names = [f"ten_{number}_{uuid4().hex}" for number in range(_SHARDS)]
    async with sql.connected(primary.superuser_url) as connection, AsyncExitStack() as exits:

        async def drop(name: str) -> None:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

        for name in names:
            await connection.execute(f"CREATE DATABASE {name} OWNER cinnabar STRATEGY wal_log")
            exits.push_async_callback(drop, name)
        shards = [ShardUrls(primary_url=primary.url_of(name), replica_urls=()) for name in names]
        await migrate_all(config_for(shards))
        yield shards


async def test_ten_shards_share_everything_and_answer_as_one(
    postgres_servers: PostgresServers, tenant: str
) -> None:
    async with (
        ten_databases(postgres_servers) as shards,
        storage_on(shards, pool_size=2, replica_pool_size=1) as storage,
    ):
        async with channel(storage.address) as opened:
            reader = shard_service_pb2_grpc.ShardReaderServiceStub(opened)
            status = await reader.GetShards(shard_service_pb2.GetShardsRequest())
        assert Counter(one.buckets for one in status.shards) == {103: 4, 102: 6}
        assert all(one.reachable for one in status.shards)
        rows = [new_submission(tenant=tenant, author=f"student-{n}") for n in range(_AUTHORS)]
        created = await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=rows))
        assert {one.status for one in created.results} == {pb.CreateSubmissionsResponse.Result.CREATED}
        per_shard = await asyncio.gather(
            *(total([shard], "SELECT count(*) FROM submissions") for shard in shards)
        )
        assert (sum(per_shard), min(per_shard) > 0) == (_AUTHORS, True), per_shard
        committed = await storage.writer.CommitOutcomes(
            pb.CommitOutcomesRequest(outcomes=[graded(row) for row in rows[:150]])
        )
        assert set(committed.results) == {pb.CommitOutcomesResponse.COMMITTED}
        listed: list[str] = []
        more = True
        while more:
            page = await storage.reader.ListSubmissions(
                pb.ListSubmissionsRequest(
                    tenant=tenant,
                    course=COURSE,
                    assignment=ASSIGNMENT,
                    before=listed[-1] if listed else "",
                    limit=70,
                    min_positions=committed.positions,
                )
            )
            assert not page.unreachable
            listed += [one.submission_id for one in page.submissions]
            more = page.more
        assert listed == sorted((row.submission_id for row in rows), reverse=True)
        counted = [
            await storage.reader.CountTasks(pb.CountTasksRequest(shard=index)) for index in range(_SHARDS)
        ]
        assert [one.accepted for one in counted] == per_shard
        assert (sum(one.open for one in counted), sum(one.graded for one in counted)) == (50, 150)
