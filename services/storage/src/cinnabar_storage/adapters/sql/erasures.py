"""Erasures of one shard. Each step is one transaction with what it adds to the erasure's counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cinnabar_storage.adapters.sql import statistics as sql_statistics
from cinnabar_storage.adapters.sql.seals import redact
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.adapters.sql.statistics import owned
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.adapters.sql.uploads import UPLOAD_COLUMNS, upload_row
from cinnabar_storage.files.records import Upload
from cinnabar_storage.privacy.records import CLAIM_SECONDS, Erasure, NewErasure, OldSubmission
from cinnabar_storage.records import Lsn, SubmissionKey, TaskKey

_COLUMNS = """erasure_id, tenant, student, subject, actor, reason, submissions, grades, objects,
    redacted_events, create_time, complete_time"""
_BEGIN = """
WITH begun AS (
    INSERT INTO erasures (erasure_id, tenant, student, subject, actor, reason, claimed_until)
    VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $3 = '' THEN now() + $7 * interval '1 second' ELSE now() END)
    ON CONFLICT (erasure_id) DO NOTHING
    RETURNING erasure_id, tenant, actor
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT tenant, actor, 'erasure-asked', '', '', 0, erasure_id FROM begun
"""
_CANCEL = """
WITH cancelled AS (
    UPDATE tasks t SET state = 3, update_time = now()
    FROM submissions s
    WHERE s.tenant = $1 AND s.author = $2 AND t.submission_id = s.submission_id AND t.tenant = s.tenant
        AND t.state = 1
    RETURNING t.submission_id, t.item_id, t.queue, t.generation, t.tenant
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, $3, 'cancel', submission_id, item_id, generation, '' FROM cancelled
)
SELECT submission_id, item_id, queue FROM cancelled ORDER BY submission_id, item_id
"""
_ERASURE = f"SELECT {_COLUMNS} FROM erasures WHERE tenant = $1 AND erasure_id = $2"
# All tenants: any process goes on with whatever nobody works on.
_CLAIM = f"""
UPDATE erasures SET claimed_until = now() + $1 * interval '1 second'
WHERE erasure_id = (
    SELECT erasure_id FROM erasures
    WHERE complete_time IS NULL AND claimed_until <= now() AND {owned("erasure_id")}
    ORDER BY erasure_id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""
_TO_ERASE = """
SELECT submission_id FROM (
    SELECT submission_id FROM submissions WHERE tenant = $1 AND author = $2 OFFSET 0
) AS own
ORDER BY submission_id LIMIT $3
"""
# Whoever changes a submission holds this lock, or that of one of its tasks.
_LOCK = """
SELECT submission_id FROM submissions WHERE tenant = $1 AND submission_id = ANY($2::text[])
ORDER BY submission_id FOR UPDATE
"""
_DELETE_TASKS = "DELETE FROM tasks WHERE tenant = $1 AND submission_id = ANY($2::text[])"
_DELETE_UPGRADES = "DELETE FROM upgrades WHERE tenant = $1 AND submission_id = ANY($2::text[])"
_DELETE_GRADES = """
WITH gone AS (
    DELETE FROM grades WHERE tenant = $1 AND submission_id = ANY($2::text[]) RETURNING submission_id
)
SELECT count(*) FROM gone
"""
_DELETE_REVIEWS = "DELETE FROM reviews WHERE tenant = $1 AND submission_id = ANY($2::text[])"
_DELETE_SUBMISSIONS = """
WITH gone AS (
    DELETE FROM submissions WHERE tenant = $1 AND submission_id = ANY($2::text[]) RETURNING submission_id
)
SELECT count(*) FROM gone
"""
_COUNT = """
UPDATE erasures
SET submissions = submissions + $3, grades = grades + $4, objects = objects + $5,
    claimed_until = now() + $6 * interval '1 second'
WHERE tenant = $1 AND erasure_id = $2 AND complete_time IS NULL
"""
_DELETE_UPLOADS = """
WITH gone AS (
    DELETE FROM uploads WHERE tenant = $1 AND upload_id = ANY($2::text[]) RETURNING upload_id
)
SELECT count(*) FROM gone
"""
_UPLOADS = f"""
SELECT {UPLOAD_COLUMNS} FROM uploads WHERE tenant = $1 AND submission_id = ANY($2::text[]) ORDER BY upload_id
"""
# Replaced, not left out: a filter without authors would mean everybody.
_FORGET_IN_FILTERS = """
UPDATE regrades
SET filter = jsonb_set(filter::jsonb, '{authors}', (
    SELECT jsonb_agg(CASE WHEN author = $2 THEN 'erased' ELSE author END)
    FROM jsonb_array_elements_text(filter::jsonb -> 'authors') AS author
))::text
WHERE tenant = $1 AND filter LIKE '%' || $2 || '%' AND filter::jsonb -> 'authors' ? $2
"""
_REDACTED = "SELECT count(*) FROM audit WHERE erasure_id = $1"
_COMPLETE = """
WITH completed AS (
    UPDATE erasures SET complete_time = now(), student = '', redacted_events = $3
    WHERE tenant = $1 AND erasure_id = $2 AND complete_time IS NULL
    RETURNING tenant, actor, erasure_id
)
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT tenant, actor, 'erasure-done', '', '', 0, erasure_id FROM completed
"""
# All tenants: retention walks through everything and asks for each what its policy is.
_OLD = f"""
SELECT submission_id, tenant, course FROM submissions
WHERE submission_id > $1 AND submission_id < $2 AND {owned("submission_id")} ORDER BY submission_id LIMIT $3
"""


class SqlErasures:
    """Implements erasure_records.ErasureRows on the primary of a shard."""

    _server: Server

    async def begin_erasure(self, erasure: NewErasure) -> tuple[list[tuple[TaskKey, str]], Lsn]:
        async def work(driver: Driver) -> list[tuple[TaskKey, str]]:
            await driver.fetchval(_BEGIN, *erasure, CLAIM_SECONDS)
            rows = await driver.fetch(_CANCEL, erasure.tenant, erasure.student, erasure.actor)
            return [(TaskKey(row[0], row[1]), row[2]) for row in rows]

        cancelled = await self._server.transact(work)
        return cancelled, await self._server.run(flushed)

    async def erasure(self, tenant: str, erasure_id: str) -> Erasure | None:
        row = await self._server.read(
            lambda driver: driver.fetchrow(_ERASURE, tenant, erasure_id), fenced=False
        )
        return None if row is None else _erasure(row)

    async def claim_erasure(self, seconds: float) -> Erasure | None:
        row = await self._server.run(lambda driver: driver.fetchrow(_CLAIM, seconds))
        return None if row is None else _erasure(row)

    async def submissions_to_erase(self, tenant: str, student: str, limit: int) -> list[str]:
        rows = await self._server.read(
            lambda driver: driver.fetch(_TO_ERASE, tenant, student, limit), fenced=False
        )
        return [row[0] for row in rows]

    async def redact_audit(self, erasure: Erasure, submission_ids: Sequence[str]) -> None:
        await self._server.transact(lambda driver: _redact(driver, erasure, submission_ids))

    async def erase_submissions(self, erasure: Erasure, submission_ids: Sequence[str]) -> Lsn:
        ids = list(submission_ids)

        async def work(driver: Driver) -> None:
            await driver.fetch(_LOCK, erasure.tenant, ids)
            await driver.fetchval(_DELETE_TASKS, erasure.tenant, ids)
            await driver.fetchval(_DELETE_UPGRADES, erasure.tenant, ids)
            grades = await driver.fetchval(_DELETE_GRADES, erasure.tenant, ids)
            await driver.fetchval(_DELETE_REVIEWS, erasure.tenant, ids)
            submissions = await driver.fetchval(_DELETE_SUBMISSIONS, erasure.tenant, ids)
            await _redact(driver, erasure, ids)
            await sql_statistics.locked(driver)
            await sql_statistics.forget(driver, [SubmissionKey(erasure.tenant, one) for one in ids])
            await _count(driver, erasure, submissions=submissions, grades=grades)

        await self._server.transact(work)
        return await self._server.run(flushed)

    async def erase_uploads(self, erasure: Erasure, uploads: Sequence[Upload]) -> None:
        ids = [upload.upload_id for upload in uploads]

        async def work(driver: Driver) -> None:
            await _count(driver, erasure, objects=await driver.fetchval(_DELETE_UPLOADS, erasure.tenant, ids))

        await self._server.transact(work)

    async def uploads_of_submissions(self, tenant: str, submission_ids: Sequence[str]) -> list[Upload]:
        ids = list(submission_ids)
        rows = await self._server.read(lambda driver: driver.fetch(_UPLOADS, tenant, ids), fenced=False)
        return list(map(upload_row, rows))

    async def forget_in_filters(self, tenant: str, student: str) -> None:
        await self._server.run(lambda driver: driver.fetchval(_FORGET_IN_FILTERS, tenant, student))

    async def redacted_events(self, erasure_id: str) -> int:
        return await self._server.run(lambda driver: driver.fetchval(_REDACTED, erasure_id))

    async def complete_erasure(self, erasure: Erasure, redacted_events: int) -> Lsn:
        async def work(driver: Driver) -> Lsn:
            await driver.fetchval(_COMPLETE, erasure.tenant, erasure.erasure_id, redacted_events)
            return await flushed(driver)

        return await self._server.transact(work)

    async def old_submissions(self, after: str, before: str, limit: int) -> list[OldSubmission]:
        rows = await self._server.run(lambda driver: driver.fetch(_OLD, after, before, limit))
        return [OldSubmission._make(row) for row in rows]


async def _redact(driver: Driver, erasure: Erasure, submission_ids: Sequence[str]) -> None:
    await redact(
        driver,
        tenant=erasure.tenant,
        erasure_id=erasure.erasure_id,
        actor=erasure.actor,
        submission_ids=submission_ids,
    )


async def _count(
    driver: Driver, erasure: Erasure, *, submissions: int = 0, grades: int = 0, objects: int = 0
) -> None:
    await driver.fetchval(
        _COUNT, erasure.tenant, erasure.erasure_id, submissions, grades, objects, CLAIM_SECONDS
    )


def _erasure(row: Sequence[Any]) -> Erasure:
    complete_time = None if row[11] is None else micros(row[11])
    return Erasure._make((*row[:10], micros(row[10]), complete_time))
