"""Steps through a shard's audit in commit order, each in one transaction with its work.

Rows of a transaction become visible when it commits, in any order of their
numbers. So a step reads no further than the oldest transaction that is still
under way: below it nothing can appear any more. A transaction that stays open
for long holds followers back; it never makes them miss a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, cast

from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.trail.audit import AuditPosition, AuditRow
from cinnabar_storage.trail.followers import REST_FACTOR, Stepped

Work = Callable[[Driver, AuditPosition, int], Awaitable[tuple[AuditPosition, int]]]
"""Does its work with at most so many rows after the position, in the step's transaction.

Returns the position of the last one and how many there were; the position that
it was given, and 0, when there was none.
"""

SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
"""Condition of rows of the audit that no row can come before any more."""

# A glance without a lock, which would have to be written to disk: most of the time nothing is new.
_NEWS = f"""
SELECT EXISTS (
    SELECT FROM audit
    WHERE (xid, audit_id) > (coalesce(f.xid, 0), coalesce(f.audit_id, 0)) AND {SETTLED}
)
FROM (SELECT $1::text AS name) AS wanted LEFT JOIN audit_followers f ON f.name = wanted.name
WHERE coalesce(f.rest_until <= clock_timestamp(), true)
"""
_ADD = "INSERT INTO audit_followers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING"
# The lock on the row is what makes it one process at a time.
_TAKE = """
SELECT xid, audit_id FROM audit_followers WHERE name = $1 AND rest_until <= clock_timestamp()
FOR UPDATE SKIP LOCKED
"""
# All processes together rest, not each by itself.
_ADVANCE = f"""
UPDATE audit_followers
SET xid = $2, audit_id = $3,
    rest_until = clock_timestamp() + {REST_FACTOR} * (clock_timestamp() - transaction_timestamp())
WHERE name = $1
"""
# All tenants: whoever follows has to keep them apart.
_ROWS = f"""
SELECT audit_id, xid, at, tenant, actor, action, submission_id, item_id, generation, detail
FROM audit WHERE (xid, audit_id) > ($1, $2) AND {SETTLED}
ORDER BY xid, audit_id LIMIT $3
"""


def sql_step(server: Server, name: str, work: Work, *, limit: int) -> Callable[[], Awaitable[Stepped]]:
    """The step of the follower ``name`` on one shard; ``work`` is undone when it fails, and may be repeated.

    It does nothing while another process is at it, or shortly after. Raises what
    Server.transact does and what ``work`` does.
    """

    async def inside(driver: Driver) -> Stepped:
        await driver.fetchval(_ADD, name)
        taken = await driver.fetchrow(_TAKE, name)
        if taken is None:
            return Stepped(0, more=False)
        position = AuditPosition(*taken)
        reached, rows = await work(driver, position, limit)
        if rows:
            await driver.fetchval(_ADVANCE, name, *reached)
        return Stepped(rows, more=rows >= limit)

    async def step() -> Stepped:
        if not await server.run(lambda driver: driver.fetchval(_NEWS, name)):
            return Stepped(0, more=False)
        return await server.transact(inside)

    return step


def with_rows(work: Callable[[Driver, Sequence[AuditRow]], Awaitable[None]]) -> Work:
    """Work that is handed the rows, in commit order; it is not called without any."""

    async def reading(driver: Driver, after: AuditPosition, limit: int) -> tuple[AuditPosition, int]:
        rows = [_audit_row(row) for row in await driver.fetch(_ROWS, *after, limit)]
        if not rows:
            return after, 0
        await work(driver, rows)
        return rows[-1].position, len(rows)

    return reading


def _audit_row(row: Sequence[Any]) -> AuditRow:
    return AuditRow(row[0], row[1], micros(cast("datetime", row[2])), *row[3:])
