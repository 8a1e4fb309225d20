"""From one release to the next with rows in the tables, and processes of the old one still writing."""

from __future__ import annotations

import pytest_asyncio

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_common.names import Bucket, new_id
from cinnabar_local import sql
from cinnabar_storage.adapters.sql.migrating import migrate
from cinnabar_storage.app import migrate_all
from tests.support.servers import ShardUrls
from tests.support.storage_records import new_submission
from tests.support.storage_service import config_for, storage_on
from tests.support.storage_sql import total
from tests.support.waiting import until

TENANT = "rollout"
# More than one part of the backfill.
MANY = 12_000

# What the first release writes: it names the columns that it knows.
_OLD_SUBMISSIONS = """
INSERT INTO submissions (submission_id, tenant, course, assignment, revision_id, author, request_id,
                         fingerprint, priority, answers, max_score, create_time)
SELECT id, 'rollout', 'net', 'a1', 'r', 'ann', NULL, '', 1, 'answers', 1.0, now()
FROM unnest($1::text[]) AS id
"""
_OLD_TASKS = """
INSERT INTO tasks (submission_id, item_id, tenant, queue, state, generation, fence)
SELECT id, item, 'rollout', 'text', $3, $4, 0 FROM unnest($1::text[]) AS id, unnest($2::text[]) AS item
"""
_OLD_GRADES = """
INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence)
SELECT id, item, $3, 'rollout', 1.0, 'grade', '1-x', 'worker', 1
FROM unnest($1::text[]) AS id, unnest($2::text[]) AS item
"""


@pytest_asyncio.fixture
async def first_release(postgres_shards: list[ShardUrls]) -> list[ShardUrls]:
    """Shards with the schema of the first release."""
    await migrate(
        [shard.primary_url for shard in postgres_shards], connect_seconds=5, wait_seconds=10, to="0001"
    )
    return postgres_shards


async def write_as_the_first_release(shard: ShardUrls) -> str:
    """A submission with five tasks: open, dead, cancelled, graded, and graded with an open regrade."""
    ids = [new_id(Bucket(1))]
    async with sql.connected(shard.primary_url) as connection:
        await connection.fetchval(_OLD_SUBMISSIONS, ids)
        for item, state, generation in (("open", 1, 1), ("dead", 2, 1), ("gone", 3, 1), ("again", 1, 2)):
            await connection.fetchval(_OLD_TASKS, ids, [item], state, generation)
        await connection.fetchval(_OLD_GRADES, ids, ["done", "again"], 1)
    return ids[0]


async def test_a_storage_starts_on_the_schema_of_a_later_release(postgres_shards: list[ShardUrls]) -> None:
    """Migrations only add until nothing needs what they would remove: an older process may restart."""
    await migrate_all(config_for(postgres_shards))
    for shard in postgres_shards:
        async with sql.connected(shard.primary_url) as connection:
            assert await connection.fetchval("UPDATE alembic_version SET version_num = '9999' RETURNING true")
    async with storage_on(postgres_shards) as storage:
        assert (await storage.reader.ListShards(pb.ListShardsRequest())).shard_count == len(postgres_shards)


async def test_rows_of_the_first_release_are_counted_by_the_migration(
    first_release: list[ShardUrls],
) -> None:
    shard = first_release[0]
    mixed = await write_as_the_first_release(shard)
    many = [new_id(Bucket(2)) for _ in range(MANY)]
    async with sql.connected(shard.primary_url) as connection:
        await connection.fetchval(_OLD_SUBMISSIONS, many)
        await connection.fetchval(_OLD_TASKS, many, ["q1", "q2"], 1, 1)
    await migrate_all(config_for(first_release))
    uncounted = "SELECT count(*) FROM submissions WHERE task_count IS NULL"
    assert await total([shard], uncounted) == 0
    counted = "SELECT count(*) FROM submissions WHERE task_count = 2"
    assert await total([shard], counted) == MANY
    count_of = "SELECT task_count FROM submissions WHERE submission_id = $1"
    assert await total([shard], count_of, mixed) == 5


async def test_a_migration_that_was_stopped_in_its_backfill_goes_on(first_release: list[ShardUrls]) -> None:
    shard = first_release[0]
    mixed = await write_as_the_first_release(shard)
    await migrate_all(config_for(first_release))
    async with sql.connected(shard.primary_url) as connection:
        await connection.execute("UPDATE submissions SET task_count = NULL")
        await connection.execute("UPDATE alembic_version SET version_num = '0001'")
    await migrate_all(config_for(first_release))
    count_of = "SELECT task_count FROM submissions WHERE submission_id = $1"
    assert await total([shard], count_of, mixed) == 5


async def test_a_writer_of_the_first_release_goes_on_and_everything_adds_up(
    first_release: list[ShardUrls],
) -> None:
    before = await write_as_the_first_release(first_release[0])
    await migrate_all(config_for(first_release))
    after = await write_as_the_first_release(first_release[0])
    uncounted = "SELECT count(*) FROM submissions WHERE task_count IS NULL"
    assert await total(first_release, uncounted) == 1
    async with storage_on(first_release) as storage:
        fresh = new_submission(tenant=TENANT, items=("q1", "q2"))
        while int(fresh.submission_id[-3:], 16) >= 512:  # of the other shard
            fresh = new_submission(tenant=TENANT, items=("q1", "q2"))
        await storage.writer.CreateSubmissions(pb.CreateSubmissionsRequest(submissions=[fresh]))
        wanted = pb.CountTasksResponse(
            accepted=2 * (5 + 1) + 2, open=2 * 2 + 2, dead_lettered=2, cancelled=2, graded=2 * 2
        )

        async def counted() -> bool:
            return await storage.reader.CountTasks(pb.CountTasksRequest(shard=0)) == wanted

        await until(counted, description="the replica counts what was written")
        page = await storage.reader.ListOpenTasks(pb.ListOpenTasksRequest(shard=0, limit=10))
        assert {(task.submission_id, task.item_id) for task in page.tasks} == {
            *((old, item) for old in (before, after) for item in ("again", "open")),
            *((fresh.submission_id, item) for item in ("q1", "q2")),
        }
        assert not any(task.HasField("grade_after") or task.HasField("grade_by") for task in page.tasks)
        request = pb.RedriveTasksRequest(tenant=TENANT, actor="operator-1")
        for old in (before, after):
            request.tasks.add(submission_id=old, item_id="dead")
        redriven = await storage.writer.RedriveTasks(request)
        assert redriven.results == [pb.RedriveTasksResponse.Result.REDRIVEN] * 2
