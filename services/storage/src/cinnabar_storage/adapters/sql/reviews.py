"""Grades by people, and the history of submissions, of one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.etags import etag_from
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import Grade, GradeKind, Lsn, SubmissionKey
from cinnabar_storage.reviewing.records import (
    Grading,
    GradingQuery,
    Gradings,
    Overridden,
    Override,
    audit_detail,
)
from cinnabar_storage.trail.audit import AuditEvent, AuditQuery

# Whoever changes grades by hand or opens tasks again takes this lock first. With
# the rows of the tasks, which graders' outcomes need, nothing of the submission
# can change any more; what is read after it is how it stays.
LOCK_SUBMISSION = "SELECT true FROM submissions WHERE submission_id = $1 AND tenant = $2 FOR UPDATE"
LOCK_TASKS = """
SELECT item_id, generation, state, shadow, fence FROM tasks
WHERE submission_id = $1 AND tenant = $2 ORDER BY item_id FOR UPDATE
"""
CURRENT_GENERATIONS = """
SELECT item_id, max(generation) FROM grades
WHERE submission_id = $1 AND tenant = $2 AND kind <> 3 GROUP BY item_id
"""
_NEWEST = """
SELECT coalesce(max(generation), 0) FROM grades WHERE submission_id = $1 AND tenant = $2 AND item_id = $3
"""
_CURRENT = """
SELECT score, grade, kind, worker, reason FROM grades
WHERE submission_id = $1 AND tenant = $2 AND item_id = $3 AND generation = $4
"""
_END_REVIEW = "DELETE FROM reviews WHERE submission_id = $1 AND tenant = $2 AND item_id = $3"
_CLOSE = "DELETE FROM tasks WHERE submission_id = $1 AND tenant = $2 AND item_id = $3"
# The time is that of the change, not that of the transaction, which may have
# waited for the lock: in the order of times the audit tells what came after what.
_OVERRIDE = """
WITH graded AS (
    INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
                        create_time, kind, reason, revision_id)
    VALUES ($1, $3, $4, $2, $5, $6, '', $7, $8, clock_timestamp(), 2, $9, $10)
    RETURNING create_time
)
INSERT INTO audit (at, tenant, actor, action, submission_id, item_id, generation, detail)
SELECT create_time, $2, $7, 'override', $1, $3, $4, $11 FROM graded
"""
# Without the first that there is no room for.
_GRADINGS = """
SELECT submission_id, item_id, generation, score, grade, create_time, kind, revision_id, regrade_id,
       worker, reason, current
FROM (
    SELECT page.*, row_number() OVER given AS number, sum(octet_length(grade)) OVER given AS bytes
    FROM (
        SELECT g.*, g.generation = max(g.generation) FILTER (WHERE g.kind <> 3)
                   OVER (PARTITION BY g.item_id) AS current
        FROM grades g WHERE g.submission_id = $1 AND g.tenant = $2
    ) AS page
    WHERE (page.kind <> 3 OR $3) AND (page.item_id, page.generation) > ($4, $5)
    WINDOW given AS (ORDER BY page.item_id, page.generation)
    ORDER BY page.item_id, page.generation LIMIT $6::bigint + 1
) AS sized
WHERE number = 1 OR bytes <= $7::bigint
ORDER BY item_id, generation
"""
_MORE_GRADINGS = """
SELECT EXISTS (
    SELECT FROM grades WHERE submission_id = $1 AND tenant = $2 AND (kind <> 3 OR $3)
        AND (item_id, generation) > ($4, $5)
)
"""
_EVENTS = """
SELECT at, audit_id, actor, action, item_id, generation, detail,
       coalesce((xid, audit_id) <= (sealed.last_xid, sealed.last_audit_id), false)
FROM audit LEFT JOIN (
    SELECT last_xid, last_audit_id FROM audit_seals ORDER BY seal DESC LIMIT 1
) AS sealed ON true
WHERE tenant = $1 AND submission_id = $2
    AND (at, audit_id) >= (timestamptz 'epoch' + $3::bigint * interval '1 microsecond', $4)
    AND NOT ($5 AND (at, audit_id) = (timestamptz 'epoch' + $3::bigint * interval '1 microsecond', $4))
ORDER BY at, audit_id LIMIT $6
"""


async def override_grade(server: Server, override: Override) -> tuple[Overridden, Lsn]:
    """See ports.Shard."""

    async def work(driver: Driver) -> Overridden:
        overridden = await _override(driver, override)
        if not overridden.applied:
            await server.require(driver)  # nothing was written, so nothing has shown that it belongs here
        return overridden

    overridden = await server.transact(work)
    # After the commit, so that it is covered.
    return overridden, await server.run(flushed)


class Locked(NamedTuple):
    """A submission that nobody else changes now: rows of LOCK_TASKS and the counting generation, by item."""

    tasks: Mapping[str, Sequence[Any]]
    counting: Mapping[str, int]

    @property
    def etag(self) -> str:
        """As `etags.etag_of`."""
        visible = [
            (row[0], row[1], row[2])
            for row in self.tasks.values()
            if not row[3] and row[1] > self.counting.get(row[0], 0)
        ]
        return etag_from(visible, self.counting.items())


async def locked(driver: Driver, key: SubmissionKey) -> Locked:
    """Until the end of the transaction. Raises ResourceNotFound."""
    this = (key.submission_id, key.tenant)
    if not await driver.fetchval(LOCK_SUBMISSION, *this):
        raise ResourceNotFound(key.submission_id)
    tasks = {row[0]: row for row in await driver.fetch(LOCK_TASKS, *this)}
    return Locked(tasks, {row[0]: row[1] for row in await driver.fetch(CURRENT_GENERATIONS, *this)})


async def _override(driver: Driver, override: Override) -> Overridden:
    tenant, submission_id = override.key
    this = (submission_id, tenant)
    state = await locked(driver, override.key)
    tasks, counting = state
    task, generation = tasks.get(override.item_id), counting.get(override.item_id, 0)
    if task is None and not generation:
        raise ResourceNotFound(f"{submission_id}/{override.item_id}")
    current = await driver.fetchrow(_CURRENT, *this, override.item_id, generation) if generation else None
    # Said before the etag is looked at: it is that of before the first attempt.
    if current is not None and tuple(current) == _wanted(override) and (task is None or task[3]):
        return Overridden(generation, applied=False)
    if override.etag and override.etag != state.etag:
        raise EtagMismatch(submission_id)
    newest: int = await driver.fetchval(_NEWEST, *this, override.item_id)
    if task is not None:
        await driver.fetchval(_CLOSE, *this, override.item_id)
    await driver.fetchval(_END_REVIEW, *this, override.item_id)
    # A task may be older than a grade: it was overtaken by the promotion of a shadow.
    generation = newest + 1 if task is None or task[1] <= newest else task[1]
    await driver.fetchval(
        *(_OVERRIDE, *this, override.item_id, generation, override.score, override.grade, override.actor),
        *(0 if task is None else task[4], override.reason, override.revision_id or None),
        audit_detail(None if current is None else current[0], override.score, override.reason),
    )
    return Overridden(generation, applied=True)


def _wanted(override: Override) -> tuple[Any, ...]:
    return override.score, override.grade, int(GradeKind.OVERRIDDEN), override.actor, override.reason


async def gradings(server: Server, query: GradingQuery) -> Gradings:
    """See ports.Copy."""
    tenant, submission_id = query.key

    async def work(driver: Driver) -> Gradings:
        rows = await driver.fetch(
            *(_GRADINGS, submission_id, tenant, query.shadows, query.after_item_id, query.after_generation),
            *(query.limit, MAX_PAGE_BYTES),
        )
        page = [_grading(row) for row in rows[: query.limit]]
        if not page or len(rows) > query.limit:
            return Gradings(page, more=bool(page))
        last = page[-1].grade
        more = await driver.fetchval(
            _MORE_GRADINGS, submission_id, tenant, query.shadows, last.item_id, last.generation
        )
        return Gradings(page, more=more)

    return await server.read(work)


def _grading(row: Sequence[Any]) -> Grading:
    grade = Grade(
        *row[:5],
        create_time=micros(row[5]),
        kind=row[6],
        revision_id=row[7] or "",
        regrade_id=row[8] or "",
        actor=row[9],
        reason=row[10],
    )
    return Grading(grade, bool(row[11]))


async def audit_events(server: Server, query: AuditQuery) -> list[AuditEvent]:
    """See ports.Copy."""
    rows = await server.run(
        lambda driver: driver.fetch(
            *(_EVENTS, *query.key, query.at, query.audit_id, query.exclusive, query.limit)
        )
    )
    return [AuditEvent(micros(row[0]), *row[1:]) for row in rows]
