"""Moves of buckets on Postgres: what a mover does to one shard, and the ledger on shard 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.adapters.sql.tables import metadata
from cinnabar_storage.shards.bucket_map import BucketSet
from cinnabar_storage.shards.moves import Change, Holding, Move, MoveStep, Superseded

_MOVER_LOCK = 0x6D6F766572  # "mover"
_GUARD_LOCK = 0x6275636B657473  # that of the migration that made the guard
_PAGE_ROWS = 500
_PAGE_BYTES = 8 * 1024 * 1024
_WIPE_ROWS = 1000

_MOVED_BY: dict[str, str] = {
    table.name: cast("str", table.info["moves_by"])
    for table in metadata.sorted_tables
    if "moves_by" in table.info
}
"""The column with the id by table."""

_HOLDINGS = "SELECT bucket, state, epoch FROM buckets WHERE bucket = ANY($1::smallint[])"
_BUSY = "SELECT EXISTS (SELECT FROM regrade_parts WHERE NOT done)"
# The guard lets a mover pass, for the length of this transaction.
_AS_MOVER = "SELECT set_config('cinnabar.mover', 'on', true)"
# Writers queue behind whoever waits for the lock alone: so it waits briefly, and asks again later.
_BRIEFLY = "SELECT set_config('lock_timeout', '200ms', true)"
_ALONE = f"SELECT pg_advisory_xact_lock({_GUARD_LOCK})"
_EXPECT = """
INSERT INTO buckets AS b (bucket, state, epoch, term) SELECT k, 4, 0, $2 FROM unnest($1::smallint[]) AS k
ON CONFLICT (bucket) DO UPDATE SET term = excluded.term WHERE b.term <= excluded.term
RETURNING bucket
"""
_CHANGE_STATE = """
UPDATE buckets SET state = $3, term = $2, epoch = coalesce($5, epoch)
WHERE bucket = ANY($1::smallint[]) AND term <= $2 AND state = ANY($4::smallint[])
RETURNING bucket
"""
_STILL = """
SELECT bucket FROM buckets WHERE bucket = ANY($1::smallint[]) AND state = $2 AND term = $3 FOR SHARE
"""
_GONE = "SELECT bucket FROM buckets WHERE bucket = ANY($1::smallint[]) AND state = 5 FOR SHARE"
_PAGE = """
WITH page AS (
    SELECT {id} AS id, row_number() OVER given AS number,
           sum(pg_column_size(t.*)) OVER (given ROWS UNBOUNDED PRECEDING) AS bytes
    FROM (
        SELECT * FROM {table} WHERE {id} > $1 AND get_bit($2::bytea, bucket_of_id({id})) <> 0
        ORDER BY {id} LIMIT $3
    ) AS t
    WINDOW given AS (ORDER BY {id})
)
SELECT DISTINCT id FROM page WHERE number = 1 OR bytes <= $4 ORDER BY id
"""
_ROWS = "SELECT t::text FROM {table} AS t WHERE {id} = ANY($1::text[])"
_CLEAR = "DELETE FROM {table} WHERE {id} = ANY($1::text[])"
_PUT = """
INSERT INTO {table} OVERRIDING SYSTEM VALUE
SELECT (parsed.row).* FROM (
    SELECT given::{table} AS row FROM unnest($1::text[]) AS given OFFSET 0
) AS parsed
"""
_WIPE = """
WITH chosen AS (
    SELECT DISTINCT id FROM (
        SELECT {id} AS id FROM {table} WHERE {id} > $1 AND get_bit($2::bytea, bucket_of_id({id})) <> 0
        ORDER BY {id} LIMIT $3
    ) AS page
), removed AS (
    DELETE FROM {table} WHERE {id} IN (SELECT id FROM chosen)
)
SELECT max(id) FROM chosen
"""
_CHANGES = """
SELECT change_id, bucket, source, row_id FROM bucket_changes
WHERE bucket = ANY($1::smallint[]) ORDER BY bucket, change_id LIMIT $2
"""
_DROP_CHANGES = """
DELETE FROM bucket_changes c USING unnest($1::smallint[], $2::bigint[]) AS seen(bucket, change_id)
WHERE c.bucket = seen.bucket AND c.change_id = seen.change_id
"""
_FORGET = """
WITH forgotten AS (
    DELETE FROM buckets WHERE bucket = ANY($1::smallint[]) AND state = 5 RETURNING bucket
)
DELETE FROM bucket_changes WHERE bucket IN (SELECT bucket FROM forgotten)
"""

_NEW_TERM = "UPDATE bucket_control SET term = term + 1 RETURNING term"
_NEW_EPOCH = "UPDATE bucket_control SET epoch = greatest(epoch, $1) + 1 RETURNING epoch"
_MOVES = "SELECT bucket, from_shard, to_shard, step FROM bucket_moves ORDER BY number"
_REPLACE = "DELETE FROM bucket_moves WHERE bucket = ANY($1::smallint[]) AND step = 1"
# A move belongs to no tenant and no submission: those columns of its audit row are empty.
_PLAN = """
WITH planned AS (
    INSERT INTO bucket_moves (bucket, from_shard, to_shard, step, actor)
    SELECT bucket, from_shard, to_shard, 1, $4
    FROM unnest($1::smallint[], $2::smallint[], $3::smallint[])
        WITH ORDINALITY AS given(bucket, from_shard, to_shard, n) ORDER BY n
    ON CONFLICT (bucket) DO NOTHING
    RETURNING bucket, to_shard
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT '', $4, 'move-buckets', '', '', 0, count(*) || ' to shard ' || to_shard FROM planned GROUP BY to_shard
"""
_ADVANCE = "UPDATE bucket_moves SET step = $2, update_time = now() WHERE bucket = ANY($1::smallint[])"
_DONE = "DELETE FROM bucket_moves WHERE bucket = ANY($1::smallint[])"


class SqlMovingShard:
    """Implements moves.MovingShard on a shard's primary."""

    tables: Sequence[str] = tuple(_MOVED_BY)

    def __init__(self, server: Server) -> None:
        self._server = server

    async def holdings(self, buckets: Collection[int]) -> Mapping[int, Holding]:
        rows = await self._server.run(lambda driver: driver.fetch(_HOLDINGS, list(buckets)))
        return {row[0]: Holding(row[1], row[2]) for row in rows}

    async def busy(self) -> bool:
        return await self._server.run(lambda driver: driver.fetchval(_BUSY))

    async def expect(self, buckets: Collection[int], term: int) -> None:
        wanted = list(buckets)
        taken = await self._server.run(lambda driver: driver.fetch(_EXPECT, wanted, term))
        if len(taken) < len(wanted):
            raise Superseded

    async def begin(self, buckets: Collection[int], term: int) -> None:
        await self._alone(buckets, term, to=2, given=(1, 2, 3))

    async def fence(self, bucket: int, term: int) -> None:
        await self._alone([bucket], term, to=3, given=(2, 3))

    async def accept(self, bucket: int, term: int, epoch: int) -> None:
        # Known as its own when the answer to a first attempt was lost.
        if (await self.holdings([bucket])).get(bucket) != Holding(1, epoch):
            await self._server.run(lambda driver: _change(driver, [bucket], term, 1, (4,), epoch))

    async def release(self, bucket: int, term: int) -> None:
        await self._server.run(lambda driver: _change(driver, [bucket], term, 5, (2, 3, 5), None))

    async def _alone(self, buckets: Collection[int], term: int, *, to: int, given: Sequence[int]) -> None:
        async def work(driver: Driver) -> None:
            await driver.fetchval(_BRIEFLY)
            await driver.fetchval(_ALONE)
            await _change(driver, list(buckets), term, to, given, None)

        await self._server.transact(work)

    async def page(self, table: str, buckets: BucketSet, after: str) -> list[str]:
        query = _of(_PAGE, table)
        rows = await self._server.run(
            lambda driver: driver.fetch(query, after, buckets.mask, _PAGE_ROWS, _PAGE_BYTES)
        )
        return [row[0] for row in rows]

    async def rows(self, table: str, row_ids: Sequence[str]) -> list[str]:
        found = await self._server.run(lambda driver: driver.fetch(_of(_ROWS, table), row_ids))
        return [row[0] for row in found]

    async def put(
        self, table: str, row_ids: Sequence[str], rows: Sequence[str], buckets: Collection[int], term: int
    ) -> None:
        wanted = list(buckets)

        async def work(driver: Driver) -> None:
            if len(await driver.fetch(_STILL, wanted, 4, term)) < len(wanted):
                raise Superseded
            await driver.fetchval(_AS_MOVER)
            await driver.fetchval(_of(_CLEAR, table), row_ids)
            await driver.fetchval(_of(_PUT, table), rows)

        await self._server.transact(work)

    async def changes(self, buckets: Collection[int], limit: int) -> list[Change]:
        rows = await self._server.run(lambda driver: driver.fetch(_CHANGES, list(buckets), limit))
        return [Change._make(row) for row in rows]

    async def drop_changes(self, changes: Sequence[Change]) -> None:
        buckets = [change.bucket for change in changes]
        change_ids = [change.change_id for change in changes]
        await self._server.run(lambda driver: driver.fetchval(_DROP_CHANGES, buckets, change_ids))

    async def wipe(self, table: str, buckets: BucketSet, after: str) -> str | None:
        async def work(driver: Driver) -> str | None:
            if len(await driver.fetch(_GONE, buckets.numbers)) < len(buckets):
                raise Superseded
            await driver.fetchval(_AS_MOVER)
            return await driver.fetchval(_of(_WIPE, table), after, buckets.mask, _WIPE_ROWS)

        return await self._server.transact(work)

    async def forget(self, buckets: Collection[int]) -> None:
        await self._server.run(lambda driver: driver.fetchval(_FORGET, list(buckets)))


def _of(statement: str, table: str) -> str:
    return statement.format(table=table, id=_MOVED_BY[table])


async def _change(
    driver: Driver, buckets: Sequence[int], term: int, to: int, given: Sequence[int], epoch: int | None
) -> None:
    changed: Sequence[Any] = await driver.fetch(_CHANGE_STATE, buckets, term, to, given, epoch)
    if len(changed) < len(buckets):
        raise Superseded


class SqlLedger:
    """Implements moves.Ledger on the primary of shard 0; ``lock`` is a server of one connection there."""

    def __init__(self, server: Server, lock: Server) -> None:
        self._server = server
        self._lock = lock

    def alone(self) -> AbstractAsyncContextManager[bool]:
        return self._lock.alone(_MOVER_LOCK)

    async def new_term(self) -> int:
        return await self._server.run(lambda driver: driver.fetchval(_NEW_TERM))

    async def new_epoch(self, above: int) -> int:
        return await self._server.run(lambda driver: driver.fetchval(_NEW_EPOCH, above))

    async def moves(self) -> list[Move]:
        return [Move._make(row) for row in await self._server.run(lambda driver: driver.fetch(_MOVES))]

    async def plan(self, moves: Sequence[Move], replaced: Collection[int], actor: str) -> None:
        columns = [[move[field] for move in moves] for field in range(3)]

        async def work(driver: Driver) -> None:
            await driver.fetchval(_REPLACE, list(replaced))
            await driver.fetchval(_PLAN, *columns, actor)

        await self._server.transact(work)

    async def advance(self, buckets: Collection[int], step: MoveStep) -> None:
        await self._server.run(lambda driver: driver.fetchval(_ADVANCE, list(buckets), int(step)))

    async def done(self, buckets: Collection[int]) -> None:
        await self._server.run(lambda driver: driver.fetchval(_DONE, list(buckets)))
