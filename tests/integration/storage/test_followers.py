"""Following the audit of a shard on Postgres: in commit order, nothing twice, nothing left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from itertools import count

import pytest
import pytest_asyncio

from cinnabar_local import sql
from cinnabar_storage.adapters.sql.follower import sql_step, with_rows
from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.trail.audit import AuditRow
from cinnabar_storage.trail.followers import Stepped
from tests.support.servers import ShardUrls

_ADD = """
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT 'acme', 'ann', 'grade', 's1', 'q1', number, '' FROM unnest($1::int[]) AS number
"""
_WAKE = "UPDATE audit_followers SET rest_until = '-infinity' WHERE name = $1"
_REST = "UPDATE audit_followers SET rest_until = 'infinity' WHERE name = $1"
_numbers = count(1)


class Reader:
    """A follower that keeps what it read, in the same transaction."""

    def __init__(self, server: Server, *, limit: int = 100) -> None:
        self.name = f"reader-{next(_numbers)}"
        self.rows: list[AuditRow] = []
        self.failing = False
        self._server = server
        self.step = sql_step(server, self.name, with_rows(self._work), limit=limit)

    async def _work(self, driver: Driver, rows: Sequence[AuditRow]) -> None:
        if self.failing:
            raise RuntimeError("it broke")
        self.rows.extend(rows)

    async def woken_step(self) -> Stepped:
        """A step without the rest before it."""
        await self._server.run(lambda driver: driver.fetchval(_WAKE, self.name))
        return await self.step()

    async def new(self) -> list[int]:
        """The generations of what there is to read now, all of it."""
        begin = len(self.rows)
        while (await self.woken_step()).rows:
            pass
        return [row.generation for row in self.rows[begin:]]


@pytest_asyncio.fixture
async def server(storage_shards: list[ShardUrls]) -> AsyncGenerator[Server]:
    async with Server(
        storage_shards[0].primary_url,
        name="test",
        pool_size=4,
        pool_wait_seconds=5,
        connect_seconds=5,
        statement_seconds=5,
    ) as opened:
        yield opened


async def add(server: Server, *generations: int) -> None:
    await server.run(lambda driver: driver.fetchval(_ADD, list(generations)))


async def test_it_reads_each_row_once_in_batches(server: Server) -> None:
    reader = Reader(server, limit=2)
    await reader.new()
    assert await reader.step() == Stepped(0, more=False)
    await add(server, 1, 2, 3)
    assert await reader.woken_step() == Stepped(2, more=True)
    assert await reader.woken_step() == Stepped(1, more=False)
    assert [row.generation for row in reader.rows[-3:]] == [1, 2, 3]
    assert reader.rows[-1][3:8] == ("acme", "ann", "grade", "s1", "q1")
    assert await reader.new() == []


async def test_what_commits_late_is_neither_missed_nor_overtaken(
    server: Server, storage_shards: list[ShardUrls]
) -> None:
    reader = Reader(server)
    await reader.new()
    async with sql.connected(storage_shards[0].primary_url) as slow:
        await slow.execute("BEGIN")
        await slow.fetchval(_ADD, [1])
        await add(server, 2)
        # The first is not committed: nothing after it may be read either, or it would be missed.
        assert await reader.new() == []
        await slow.execute("COMMIT")
    assert await reader.new() == [1, 2]


async def test_rows_that_are_rolled_back_hold_up_nothing(
    server: Server, storage_shards: list[ShardUrls]
) -> None:
    reader = Reader(server)
    await reader.new()
    async with sql.connected(storage_shards[0].primary_url) as other:
        await other.execute("BEGIN")
        await other.fetchval(_ADD, [1])
        await other.execute("ROLLBACK")
    await add(server, 2)
    assert await reader.new() == [2]


async def test_rows_from_before_there_were_numbers_come_first(server: Server) -> None:
    await add(server, 1)
    await server.run(
        lambda driver: driver.fetchval(
            "INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail, xid, salt)"
            " VALUES ('acme', 'ann', 'old', '', '', 0, '', 0, NULL)"
        )
    )
    reader = Reader(server)
    await reader.new()
    assert [row.action for row in reader.rows].index("old") == 0


async def test_a_step_that_fails_is_taken_again(server: Server) -> None:
    reader = Reader(server)
    await reader.new()
    await add(server, 1)
    reader.failing = True
    with pytest.raises(RuntimeError, match="it broke"):
        await reader.woken_step()
    reader.failing = False
    assert await reader.new() == [1]


async def test_one_process_works_at_a_time(server: Server) -> None:
    reader, entered, leave = Reader(server), asyncio.Event(), asyncio.Event()

    async def slow(driver: Driver, rows: Sequence[AuditRow]) -> None:
        entered.set()
        await leave.wait()

    await reader.new()
    await add(server, 1)
    await server.run(lambda driver: driver.fetchval(_WAKE, reader.name))
    first = asyncio.ensure_future(sql_step(server, reader.name, with_rows(slow), limit=10)())
    await asyncio.wait_for(entered.wait(), 5)
    assert await reader.step() == Stepped(0, more=False)
    leave.set()
    assert await first == Stepped(1, more=False)
    assert await reader.new() == []


async def test_all_rest_four_times_as_long_as_one_worked(server: Server) -> None:
    reader = Reader(server)
    await reader.new()
    await add(server, 1)
    rested: list[datetime] = []

    async def work(driver: Driver, rows: Sequence[AuditRow]) -> None:
        begin, now = await driver.fetch("SELECT transaction_timestamp() UNION ALL SELECT clock_timestamp()")
        rested.append(begin[0] + 5 * (now[0] - begin[0]))

    await server.run(lambda driver: driver.fetchval(_WAKE, reader.name))
    await sql_step(server, reader.name, with_rows(work), limit=10)()
    [least] = rested
    until = "SELECT rest_until >= $2 FROM audit_followers WHERE name = $1"
    assert await server.run(lambda driver: driver.fetchval(until, reader.name, least))
    await add(server, 2)
    await server.run(lambda driver: driver.fetchval(_REST, reader.name))
    assert await reader.step() == Stepped(0, more=False)
    assert await reader.new() == [2]
