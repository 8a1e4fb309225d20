"""What people change of one shard: cancel, redrive, control. One statement each, its own transaction."""

from __future__ import annotations

from collections.abc import Sequence

from cinnabar_storage.adapters.sql.reads import open_task, tasks_of
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.records import (
    ANYWHERE,
    Lsn,
    OpenTask,
    Place,
    QueueControl,
    RedriveResult,
    SubmissionKey,
    Task,
    TaskKey,
)

# What has a grade already is graded again at an instructor's wish: that is not the student's to cancel.
_CANCEL = """
WITH cancelled AS (
    UPDATE tasks t SET state = 3, update_time = now()
    FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
    WHERE t.submission_id = k.submission_id AND t.tenant = k.tenant AND t.state = 1 AND t.generation = 1
        AND t.submission_id = ANY($2)
    RETURNING t.*
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, $3, 'cancel', submission_id, item_id, generation, '' FROM cancelled
)
SELECT submission_id, item_id, queue, generation, state, reason, attempts, update_time, '', false
FROM cancelled
"""
# The outer tasks are those of the snapshot, from before the update. A dead letter
# there that was not opened here was opened by somebody else just now.
_REDRIVE = """
WITH opened AS (
    UPDATE tasks t
    SET state = 1, reason = '', attempts = 0, update_time = now(),
        deadline_lifted = t.deadline_lifted OR coalesce(s.grade_by <= now(), false)
    FROM unnest($2::text[], $3::text[]) AS k(submission_id, item_id)
    JOIN submissions s ON s.submission_id = k.submission_id AND s.tenant = $1
    WHERE t.submission_id = k.submission_id AND t.item_id = k.item_id AND t.tenant = $1 AND t.state = 2
        AND t.submission_id = ANY($2) AND s.submission_id = ANY($2)
        AND $5 IN ('', s.course) AND $6 IN ('', s.assignment)
    RETURNING t.submission_id, t.item_id, t.tenant, t.queue, t.generation,
              coalesce(t.priority, s.priority) AS priority,
              coalesce(t.revision_id, s.revision_id) AS revision_id,
              s.answers, s.create_time, s.grade_after,
              CASE WHEN t.deadline_lifted THEN NULL ELSE s.grade_by END AS grade_by, t.upgrade
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, $4, 'redrive', submission_id, item_id, generation, '' FROM opened
)
SELECT k.submission_id, k.item_id, o.tenant, o.queue, o.generation,
       o.priority, o.revision_id, o.answers, o.create_time, o.grade_after, o.grade_by,
       o.upgrade,
       CASE WHEN o.submission_id IS NOT NULL THEN 1
            WHEN p.submission_id IS NULL THEN 5
            WHEN t.state IN (1, 2) THEN 2
            WHEN t.state = 3 THEN 3
            WHEN EXISTS (SELECT FROM grades g WHERE g.submission_id = k.submission_id
                         AND g.item_id = k.item_id AND g.tenant = $1) THEN 4
            ELSE 5 END
FROM unnest($2::text[], $3::text[]) AS k(submission_id, item_id)
LEFT JOIN opened o ON o.submission_id = k.submission_id AND o.item_id = k.item_id
LEFT JOIN tasks t ON t.submission_id = k.submission_id AND t.item_id = k.item_id AND t.tenant = $1
    AND t.submission_id = ANY($2)
LEFT JOIN submissions p ON p.submission_id = k.submission_id AND p.tenant = $1
    AND p.submission_id = ANY($2) AND $5 IN ('', p.course) AND $6 IN ('', p.assignment)
"""
# A queue belongs to no tenant and no submission: those columns of its audit row are empty.
_SET_QUEUE_CONTROL = """
WITH changed AS (
    INSERT INTO queue_controls AS q (queue, state, actor) VALUES ($1, $2, $3)
    ON CONFLICT (queue) DO UPDATE
    SET state = excluded.state, actor = excluded.actor, update_time = now()
    WHERE (q.state, q.actor) <> (excluded.state, excluded.actor)
    RETURNING queue, state, actor
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT '', actor, 'queue-control', '', '', 0, queue || ' ' || state FROM changed
"""


async def cancel_submissions(
    server: Server, keys: Sequence[SubmissionKey], actor: str
) -> tuple[list[Task], Lsn]:
    """See ports.Shard."""

    async def work(driver: Driver) -> tuple[list[Task], Lsn]:
        rows = await driver.fetch(_CANCEL, *zip(*sorted(keys), strict=True), actor)
        if len({row[0] for row in rows}) < len(keys):
            await server.require(driver)
        return tasks_of(rows), await flushed(driver)

    return await server.run(work)


async def redrive_tasks(
    server: Server, tenant: str, keys: Sequence[TaskKey], actor: str, place: Place = ANYWHERE
) -> tuple[list[tuple[RedriveResult, OpenTask | None]], Lsn]:
    """See ports.Shard."""
    # Kept over repetitions: what this call opened must not be reported as found open.
    results: dict[TaskKey, tuple[RedriveResult, OpenTask | None]] = {}

    async def work(driver: Driver) -> Lsn:
        if not results:
            columns = zip(*sorted(keys), strict=True)
            for row in await driver.fetch(_REDRIVE, tenant, *columns, actor, *place):
                result = RedriveResult(row[12])
                opened = open_task(row) if result is RedriveResult.REDRIVEN else None
                results[TaskKey(row[0], row[1])] = (result, opened)
            if any(opened is None for _, opened in results.values()):
                await server.require(driver)
        return await flushed(driver)

    lsn = await server.run(work)
    return [results[key] for key in keys], lsn


async def set_queue_control(server: Server, control: QueueControl) -> None:
    """See ports.Shard."""
    await server.run(lambda driver: driver.fetchval(_SET_QUEUE_CONTROL, *control))
