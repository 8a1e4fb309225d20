"""Budgets of language models, and upgrades of what fallbacks graded, on Postgres."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from cinnabar_storage.adapters.sql.held import held, held_args
from cinnabar_storage.adapters.sql.reads import open_task
from cinnabar_storage.adapters.sql.regrade_statements import OPENED
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import Lsn, OpenTask
from cinnabar_storage.spending.ports import UPGRADES_AT_MOST, ModelBudget, Upgraded

ACTOR = "scheduler"
_REGRADE = 1
"""Number of the class, as in the proto."""

_SAVE_BUDGETS = """
INSERT INTO model_budgets AS b (tenant, scope, period, tokens, cost_micros)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
ON CONFLICT (tenant, scope) DO UPDATE
SET period = excluded.period, update_time = now(),
    tokens = CASE WHEN b.period = excluded.period THEN greatest(b.tokens, excluded.tokens)
                  ELSE excluded.tokens END,
    cost_micros = CASE WHEN b.period = excluded.period THEN greatest(b.cost_micros, excluded.cost_micros)
                       ELSE excluded.cost_micros END
"""
_BUDGETS = """
SELECT tenant, scope, period, tokens, cost_micros FROM model_budgets WHERE tenant = $1 ORDER BY scope
"""
# Of all tenants: a provider is away for everybody, and comes back for everybody.
_DUE = f"""
SELECT tenant, submission_id, item_id FROM upgrades
WHERE opened < {UPGRADES_AT_MOST} AND due_time <= now() AND {held("submission_id", "$2", "$3")}
ORDER BY due_time LIMIT $1
"""
# First the submissions, as whoever changes them by hand does, then their tasks, as graders do.
_LOCK_SUBMISSIONS = """
SELECT s.submission_id FROM submissions s
WHERE s.submission_id = ANY($2)
    AND (s.tenant, s.submission_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
ORDER BY s.submission_id FOR UPDATE
"""
_LOCK_TASKS = """
SELECT t.submission_id FROM tasks t
WHERE t.submission_id = ANY($2)
    AND (t.tenant, t.submission_id, t.item_id) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
ORDER BY t.submission_id, t.item_id FOR UPDATE
"""
_OPEN = f"""
WITH looked AS (
    SELECT u.submission_id, u.item_id, u.tenant, u.queue, u.revision_id,
           coalesce(g.counting = u.generation, false) AS stands,
           coalesce(t.state = 1, false) AS busy,
           greatest(g.last, t.generation) + 1 AS generation
    FROM unnest($1::text[], $2::text[], $3::text[]) AS k(tenant, submission_id, item_id)
    JOIN upgrades u ON u.submission_id = k.submission_id AND u.item_id = k.item_id AND u.tenant = k.tenant
        AND u.submission_id = ANY($2)
    CROSS JOIN LATERAL (
        SELECT max(generation) AS last, max(generation) FILTER (WHERE kind <> 3) AS counting
        FROM grades WHERE submission_id = u.submission_id AND item_id = u.item_id AND tenant = u.tenant
    ) AS g
    LEFT JOIN tasks t ON t.submission_id = u.submission_id AND t.item_id = u.item_id AND t.tenant = u.tenant
        AND t.submission_id = ANY($2)
), opened AS (
    INSERT INTO tasks AS t (submission_id, item_id, tenant, queue, state, generation, fence, deadline_lifted,
                            priority, revision_id, upgrade)
    SELECT submission_id, item_id, tenant, queue, 1, generation, 0, true, {_REGRADE}, revision_id, true
    FROM looked WHERE stands AND NOT busy
    ON CONFLICT (submission_id, item_id) DO UPDATE
    SET queue = excluded.queue, state = 1, generation = excluded.generation, fence = 0, reason = '',
        attempts = 0, update_time = now(), deadline_lifted = true, priority = excluded.priority,
        shadow = false, revision_id = excluded.revision_id, regrade_id = NULL, upgrade = true
    WHERE t.state <> 1 AND t.generation < excluded.generation AND t.tenant = excluded.tenant
    RETURNING submission_id, item_id, generation, tenant
), noted AS (
    UPDATE upgrades u
    SET opened = u.opened + CASE WHEN l.busy THEN 0 ELSE 1 END,
        due_time = now() + $4 * interval '1 second'
    FROM looked l
    WHERE l.stands AND u.submission_id = l.submission_id AND u.item_id = l.item_id AND u.tenant = l.tenant
), forgotten AS (
    DELETE FROM upgrades u USING looked l
    WHERE NOT l.stands AND u.submission_id = l.submission_id AND u.item_id = l.item_id
        AND u.tenant = l.tenant
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, '{ACTOR}', 'upgrade', submission_id, item_id, generation, '' FROM opened
)
SELECT tenant, submission_id, item_id, generation FROM opened
"""


class SqlModels:
    """Implements model_ports.ModelShard on the primary of a shard."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def save_budgets(self, budgets: Sequence[ModelBudget]) -> None:
        # In the order of their keys, so that two who save do not deadlock.
        if budgets:
            columns = tuple(zip(*sorted(budgets), strict=True))
            await self._server.run(lambda driver: driver.fetchval(_SAVE_BUDGETS, *columns))

    async def budgets(self, tenant: str) -> list[ModelBudget]:
        rows = await self._server.run(lambda driver: driver.fetch(_BUDGETS, tenant))
        return [ModelBudget._make(row) for row in rows]

    async def open_upgrades(self, limit: int, rest_seconds: float) -> Upgraded:
        async def work(driver: Driver) -> Upgraded:
            due = await driver.fetch(_DUE, limit, *held_args(self._server.buckets))
            if not due:
                return Upgraded([], [], 0, Lsn(0))
            columns = tuple(zip(*due, strict=True))
            await driver.fetch(_LOCK_SUBMISSIONS, *columns[:2])
            await driver.fetch(_LOCK_TASKS, *columns)
            opened = await driver.fetch(_OPEN, *columns, rest_seconds)
            by_tenant: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
            for tenant, submission_id, item_id, generation in opened:
                by_tenant[tenant].append((submission_id, item_id, generation))
            queued: list[OpenTask] = []
            for tenant, tasks in by_tenant.items():
                rows = await driver.fetch(OPENED, *zip(*tasks, strict=True), tenant, MAX_PAGE_BYTES)
                queued += map(open_task, rows)
            return Upgraded(queued, sorted({(row[0], row[1]) for row in opened}), len(due), Lsn(0))

        done = await self._server.transact(work)
        return done._replace(lsn=await self._server.run(flushed)) if done.changed else done
