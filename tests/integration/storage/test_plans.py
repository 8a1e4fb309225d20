"""What is asked for by key is read by its index, also when the statistics are from when a table was small."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from itertools import count, islice
from typing import NamedTuple

import pytest
import pytest_asyncio

from cinnabar_common.names import BUCKETS, bucket_of
from cinnabar_storage.adapters.sql import operations as sql_operations
from cinnabar_storage.adapters.sql import writes as sql_writes
from cinnabar_storage.adapters.sql.reads import SqlCopy
from cinnabar_storage.adapters.sql.server import Server
from cinnabar_storage.records import (
    Lsn,
    NewSubmission,
    OwnedTaskKey,
    RedriveResult,
    SubmissionQuery,
    TaskKey,
)
from tests.support.servers import ShardUrls
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission

STORED = 3_000
ASKED = 100
_TABLES = ("submissions", "tasks", "grades")
_READ = """
SELECT coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
FROM pg_stat_user_tables WHERE relname = ANY($1)
"""


class Grown(NamedTuple):
    """A shard that grew since it was analyzed: of ``rows`` the first half is graded."""

    server: Server
    copy: SqlCopy
    rows: list[NewSubmission]


@pytest_asyncio.fixture(scope="module")
async def grown(storage_shards: list[ShardUrls]) -> AsyncGenerator[Grown]:
    server = Server(
        storage_shards[0].primary_url,
        name="plans",
        pool_size=1,
        pool_wait_seconds=20,
        connect_seconds=20,
        statement_seconds=60,
    )
    async with server:

        async def execute(statement: str) -> None:
            await server.run(lambda driver: driver.fetchval(statement))

        for table in _TABLES:
            await execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        tenant = new_tenant()
        authors = _authors_here(tenant)
        first, open_still = submission(tenant, next(authors)), submission(tenant, next(authors))
        await sql_writes.create_submissions(server, [first, open_still])
        await sql_writes.commit_outcomes(server, [grade(first)])
        for table in _TABLES:
            await execute(f"ANALYZE {table}")
        # One author has handed in ten times, as to ten assignments.
        chosen = list(islice(authors, STORED // 10))
        rows = [submission(tenant, chosen[number // 10]) for number in range(STORED)]
        await sql_writes.create_submissions(server, rows)
        await sql_writes.commit_outcomes(server, [grade(row) for row in rows[: STORED // 2]])
        yield Grown(server, SqlCopy(server, authoritative=True, shows=lambda: Lsn(0)), rows)


def _authors_here(tenant: str) -> Iterator[str]:
    """Authors whose buckets the first of two shards has."""
    return (author for author in map("author-{}".format, count()) if bucket_of(tenant, author) < BUCKETS // 2)


async def _rows_read(server: Server) -> tuple[int, int]:
    """Rows of the tables read until now: by scans of whole tables, and by indexes."""
    # A connection keeps its counts for up to a second, unless it is told to hand them over.
    await server.run(lambda driver: driver.fetchval("SELECT pg_stat_force_next_flush()"))
    [row] = await server.run(lambda driver: driver.fetch(_READ, list(_TABLES)))
    return row[0], row[1]


async def _get(grown: Grown) -> None:
    for rows in (grown.rows[:ASKED], grown.rows[-ASKED:]):
        found, _ = await grown.copy.submissions(list(map(key, rows)), max_bytes=1 << 20)
        assert [one.row.submission_id for one in found] == [row.submission_id for row in rows]


async def _commit(grown: Grown) -> None:
    rows = grown.rows[STORED // 2 : STORED // 2 + ASKED]
    await sql_writes.commit_outcomes(grown.server, [grade(row) for row in rows])
    # What is refused is looked up too.
    await sql_writes.commit_outcomes(grown.server, [grade(row, fence=2) for row in rows])


async def _create_again(grown: Grown) -> None:
    await sql_writes.create_submissions(grown.server, grown.rows[:ASKED])


async def _cancel(grown: Grown) -> None:
    await sql_operations.cancel_submissions(grown.server, list(map(key, grown.rows[-ASKED:])), "student/x")


async def _redrive(grown: Grown) -> None:
    rows = grown.rows[-2 * ASKED : -ASKED]
    await sql_writes.commit_outcomes(grown.server, [dead_letter(row) for row in rows])
    keys = [TaskKey(row.submission_id, "q1") for row in rows]
    redriven, _ = await sql_operations.redrive_tasks(grown.server, rows[0].tenant, keys, "operator/x")
    assert {result for result, _ in redriven} == {RedriveResult.REDRIVEN}


async def _look_at_tasks(grown: Grown) -> None:
    keys = [OwnedTaskKey(row.tenant, row.submission_id, "q1") for row in grown.rows[-ASKED:]]
    await grown.copy.open_generations(keys)


async def _own_list(grown: Grown) -> None:
    row = grown.rows[STORED // 3]
    for limit in (1, 100):
        query = SubmissionQuery(row.tenant, row.course, row.assignment, row.author, "", limit)
        found = await grown.copy.submission_ids(query)
        assert len(found) == min(10, limit)


@pytest.mark.parametrize("call", [_get, _commit, _create_again, _cancel, _redrive, _look_at_tasks, _own_list])
async def test_only_what_is_asked_for_is_read(grown: Grown, call: Callable[[Grown], Awaitable[None]]) -> None:
    scanned, fetched = await _rows_read(grown.server)
    await call(grown)
    scanned_after, fetched_after = await _rows_read(grown.server)
    assert scanned_after == scanned
    assert 0 < fetched_after - fetched <= 5 * ASKED
