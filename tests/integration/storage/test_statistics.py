"""The sums of statistics on Postgres: they equal their parts after any history, and are only read."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncGenerator

import pytest_asyncio

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from cinnabar_common.names import BUCKETS, Bucket, id_bucket
from cinnabar_local import sql
from cinnabar_storage.adapters.sql.server import Server
from cinnabar_storage.adapters.sql.shard import SqlShard, sql_shard
from cinnabar_storage.adapters.sql.statistics import SUMS, add_bucket, drop_bucket
from cinnabar_storage.privacy.records import Erasure, NewErasure
from cinnabar_storage.records import Graded, NewSubmission
from cinnabar_storage.reviewing.records import Override
from tests.support.servers import ShardUrls
from tests.support.storage_domain import grade, key, new_tenant, submission
from tests.support.storage_service import config_for
from tests.support.waiting import until

_PARTS = "SELECT string_agg(contributions, E'\\n') FROM submission_scores WHERE tenant = $1"
_TOTALS = """
SELECT json_agg(json_build_array(item_id, criterion, count, total, squares, histogram))
FROM assignment_scores WHERE tenant = $1
"""


@pytest_asyncio.fixture(scope="module")
async def shard(storage_shards: list[ShardUrls]) -> AsyncGenerator[SqlShard]:
    config = config_for(storage_shards[:1], follow_poll_seconds=0.02)
    async with sql_shard(0, config.urls()[0], config) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def server(storage_shards: list[ShardUrls]) -> AsyncGenerator[Server]:
    async with Server(
        storage_shards[0].primary_url,
        name="test",
        pool_size=1,
        pool_wait_seconds=5,
        connect_seconds=5,
        statement_seconds=10,
    ) as opened:
        yield opened


def here(tenant: str, items: tuple[str, ...] = ("q1",)) -> NewSubmission:
    """A submission whose bucket is one of the first shard's."""
    while True:
        row = submission(tenant, items=items)
        bucket = id_bucket(row.submission_id)
        if bucket is not None and bucket < BUCKETS // 2:
            return row


def graded(row: NewSubmission, item: str, score: float, *, fence: int = 1) -> Graded:
    message = Grade(
        score=score, max_score=4, criteria=[CriterionScore(criterion="c", score=score, max_score=4)]
    )
    return grade(row, item, fence=fence)._replace(score=score, grade=message.SerializeToString())


async def balanced(url: str, tenant: str) -> Counter[tuple[str, str]]:
    """How many scores each sum has; asserts that all sums are those of their parts, in one snapshot."""
    async with sql.connected(url) as connection:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        parts = str(await connection.fetchval(_PARTS, tenant) or "")
        totals = json.loads(str(await connection.fetchval(_TOTALS, tenant) or "[]"))
        await connection.execute("COMMIT")
    wanted: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for line in parts.splitlines():
        for item, criterion, score, share in json.loads(line):
            wanted.setdefault((item, criterion), []).append((score, share))
    found = {(row[0], row[1]): row[2:] for row in totals}
    assert found == {
        name: [
            len(scores),
            sum(score for score, _ in scores),
            sum(score**2 for score, _ in scores),
            [sum(share == part for _, share in scores) for part in range(20)],
        ]
        for name, scores in wanted.items()
    }
    return Counter({name: len(scores) for name, scores in wanted.items()})


async def settled(shard: SqlShard, url: str, tenant: str, wanted: int) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()

    async def reached() -> bool:
        nonlocal counts
        counts = await balanced(url, tenant)
        return counts["", ""] == wanted

    await until(reached, description="the follower has counted")
    return counts


async def erasure_of(shard: SqlShard, row: NewSubmission) -> Erasure:
    wanted = NewErasure(f"erasure-{row.submission_id}", row.tenant, row.author, "s", "operator/o", "r")
    await shard.begin_erasure(wanted)
    found = await shard.erasure(row.tenant, wanted.erasure_id)
    assert found is not None
    return found


async def test_sums_equal_their_parts_whatever_happens(
    shard: SqlShard, server: Server, storage_shards: list[ShardUrls]
) -> None:
    """Grades, overrides and erasures at random, with looks at the sums in between."""
    tenant, chance = new_tenant(), random.Random(11)
    url = storage_shards[0].primary_url
    rows = [here(tenant, ("q1", "q2")) for _ in range(60)]
    await shard.create_submissions(rows)
    for begin in range(0, 60, 12):
        part = rows[begin : begin + 12]
        await shard.commit_outcomes(
            [graded(row, item, round(chance.random() * 4, 3)) for row in part for item in ("q1", "q2")]
        )
        for row in chance.sample(rows[: begin + 12], 4):
            score = round(chance.random() * 4, 3)
            encoded = graded(row, "q1", score).grade
            await shard.override_grade(Override(key(row), "q1", score, encoded, "instructor/prof", "because"))
        await balanced(url, tenant)
    gone = chance.sample(rows, 20)
    for row in gone:
        await shard.erase_submissions(await erasure_of(shard, row), [row.submission_id])
        await balanced(url, tenant)
    counts = await settled(shard, url, tenant, 40)
    assert counts == {("", ""): 40, ("q1", ""): 40, ("q2", ""): 40, ("q1", "c"): 40, ("q2", "c"): 40}

    # A bucket leaves and comes back, each twice: the sums know it as often as it is there.
    left = [row for row in rows if row not in gone]
    bucket = id_bucket(left[0].submission_id)
    assert bucket is not None
    inside = sum(id_bucket(row.submission_id) == bucket for row in left)
    for change, wanted in (
        (drop_bucket, 40 - inside),
        (drop_bucket, 40 - inside),
        (add_bucket, 40),
        (add_bucket, 40),
    ):
        await change(server, Bucket(bucket))
        assert (await balanced(url, tenant))["", ""] == wanted
    for row in left:
        await shard.erase_submissions(await erasure_of(shard, row), [row.submission_id])
    assert await balanced(url, tenant) == {}


async def test_a_request_reads_sums_by_their_key(server: Server) -> None:
    """The plan names the sums alone, whatever else there is."""
    query = f"EXPLAIN (FORMAT JSON) {SUMS}"
    plan = await server.run(lambda driver: driver.fetchval(query, "t", "c", "a"))
    text = plan if isinstance(plan, str) else json.dumps(plan)
    assert '"Relation Name": "assignment_scores"' in text
    assert text.count("Relation Name") == 1
    assert "submission" not in text


async def test_statistics_say_as_of_when_they_are(shard: SqlShard, server: Server) -> None:
    tenant = new_tenant()
    row = here(tenant)
    await shard.create_submissions([row])
    rest = "UPDATE audit_followers SET rest_until = $1 WHERE name = 'statistics'"
    await server.run(lambda driver: driver.fetchval(rest.replace("$1", "'infinity'")))
    await shard.commit_outcomes([graded(row, "q1", 4.0)])
    behind = await shard.assignment_scores(tenant, "net", "a1")
    assert behind.sums == {}
    later = await shard.assignment_scores(tenant, "net", "a1")
    assert later.as_of == behind.as_of
    await server.run(lambda driver: driver.fetchval(rest.replace("$1", "'-infinity'")))

    async def caught_up() -> bool:
        now = await shard.assignment_scores(tenant, "net", "a1")
        return now.as_of > behind.as_of and now.sums["q1", ""].number == 1 if now.sums else False

    await until(caught_up, description="the follower has caught up")
