"""Rows of uploads of one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cinnabar_storage.adapters.sql import writes as sql_writes
from cinnabar_storage.adapters.sql.held import held, held_args
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.adapters.sql.writes import creation
from cinnabar_storage.files.records import Upload, UploadKind
from cinnabar_storage.records import Created, CreateStatus, Lsn, Micros, NewSubmission

UPLOAD_COLUMNS = """upload_id, tenant, course, assignment, item_id, author, kind, content_type, size_bytes,
    sha256, state, object_key, create_time, expire_time, submission_id"""
_VALUES = """$1::text, $2::text, {course}, {assignment}, $5::text, {author}, $7::smallint, $8::text,
    $9::bigint, $10::bytea, $11::smallint, $12::text, timestamptz 'epoch' + $13 * interval '1 microsecond',
    timestamptz 'epoch' + $14 * interval '1 microsecond', $15::text"""
_CREATE_ANSWER = f"""
INSERT INTO uploads ({UPLOAD_COLUMNS})
VALUES ({_VALUES.format(course="$3::text", assignment="$4::text", author="$6::text")})
ON CONFLICT (upload_id) DO NOTHING
"""
# What belongs to a submission is said by the submission.
_CREATE_ARTIFACT = f"""
INSERT INTO uploads ({UPLOAD_COLUMNS})
SELECT {_VALUES.format(course="s.course", assignment="s.assignment", author="s.author")}
FROM submissions s
WHERE s.submission_id = $15 AND s.tenant = $2 AND $3::text = '' AND $4::text = '' AND $6::text = ''
ON CONFLICT (upload_id) DO NOTHING
"""
_UPLOADS = f"SELECT {UPLOAD_COLUMNS} FROM uploads WHERE tenant = $1 AND upload_id = ANY($2::text[])"
_UPLOADS_OF = f"""
SELECT {UPLOAD_COLUMNS} FROM uploads WHERE tenant = $1 AND author = $2 ORDER BY upload_id LIMIT $3
"""
_VERIFY = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::text[]) AS given(upload_id, object_key)
), verified AS (
    UPDATE uploads u SET state = 2, object_key = given.object_key
    FROM given WHERE u.upload_id = given.upload_id AND u.tenant = $1 AND u.state = 1
    RETURNING u.upload_id
)
SELECT upload_id FROM verified
UNION
SELECT u.upload_id FROM uploads u JOIN given USING (upload_id, object_key) WHERE u.tenant = $1 AND u.state = 2
"""
# Of all tenants: what expired is collected alike for everybody.
_DOOM = f"""
UPDATE uploads SET state = 3, expire_time = timestamptz 'epoch' + $2 * interval '1 microsecond'
WHERE upload_id IN (
    SELECT upload_id FROM uploads
    WHERE bucket_of_id(upload_id) IN (SELECT bucket FROM buckets WHERE buckets.state <= 2)
        AND (submission_id IS NULL OR state <> 2)
        AND expire_time < timestamptz 'epoch' + $1 * interval '1 microsecond'
        AND {held("upload_id", "$4", "$5")}
    ORDER BY expire_time LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING {UPLOAD_COLUMNS}
"""
_DROP = """
DELETE FROM uploads u USING unnest($1::text[], $2::text[]) AS given(tenant, upload_id)
WHERE u.upload_id = given.upload_id AND u.tenant = given.tenant
"""
_KNOWN = """
SELECT u.object_key FROM unnest($1::text[], $2::text[], $3::text[]) AS given(tenant, upload_id, object_key)
JOIN uploads u ON u.upload_id = given.upload_id AND u.tenant = given.tenant
    AND u.object_key = given.object_key
"""
# In the order of their ids, so that two creates that want the same ones do not deadlock.
_LOCK = """
SELECT u.upload_id, u.course, u.assignment, u.author, u.tenant, u.submission_id
FROM uploads u
WHERE (u.tenant, u.upload_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    AND u.kind = 1 AND u.state = 2
ORDER BY u.upload_id FOR UPDATE
"""
_ATTACH = """
UPDATE uploads u SET submission_id = given.submission_id
FROM unnest($1::text[], $2::text[], $3::text[]) AS given(tenant, upload_id, submission_id)
WHERE u.upload_id = given.upload_id AND u.tenant = given.tenant
"""


class SqlUploads:
    """Implements upload_ports.UploadRows on the primary of a shard."""

    _server: Server

    async def create_upload(self, upload: Upload) -> tuple[Upload | None, Lsn]:
        statement = _CREATE_ARTIFACT if upload.kind == UploadKind.ARTIFACT else _CREATE_ANSWER

        async def work(driver: Driver) -> tuple[Upload | None, Lsn]:
            await driver.fetch(statement, *upload)
            rows = await driver.fetch(_UPLOADS, upload.tenant, [upload.upload_id])
            if not rows:
                await self._server.require(driver)
            return (upload_row(rows[0]) if rows else None), await flushed(driver)

        return await self._server.run(work)

    async def uploads(self, tenant: str, upload_ids: Sequence[str]) -> list[Upload]:
        ids = list(upload_ids)
        rows = await self._server.read(lambda driver: driver.fetch(_UPLOADS, tenant, ids), fenced=False)
        return list(map(upload_row, rows))

    async def uploads_of(self, tenant: str, author: str, limit: int) -> list[Upload]:
        rows = await self._server.read(
            lambda driver: driver.fetch(_UPLOADS_OF, tenant, author, limit), fenced=False
        )
        return list(map(upload_row, rows))

    async def verify_uploads(self, tenant: str, keys: Mapping[str, str]) -> set[str]:
        columns = (list(keys), list(keys.values()))

        async def work(driver: Driver) -> set[str]:
            verified = {row[0] for row in await driver.fetch(_VERIFY, tenant, *columns)}
            if len(verified) < len(keys):
                await self._server.require(driver)
            return verified

        return await self._server.run(work)

    async def doom_uploads(self, before: Micros, until: Micros, limit: int) -> list[Upload]:
        buckets = held_args(self._server.buckets)
        rows = await self._server.run(lambda driver: driver.fetch(_DOOM, before, until, limit, *buckets))
        return list(map(upload_row, rows))

    async def drop_uploads(self, uploads: Sequence[Upload]) -> None:
        columns = ([upload.tenant for upload in uploads], [upload.upload_id for upload in uploads])
        await self._server.run(lambda driver: driver.fetch(_DROP, *columns))

    async def known_objects(self, keys: Sequence[tuple[str, str, str]]) -> set[str]:
        if not keys:
            return set()
        columns = list(zip(*keys, strict=True))
        rows = await self._server.run(lambda driver: driver.fetch(_KNOWN, *columns))
        return {row[0] for row in rows}


async def create_submissions(server: Server, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
    """See ports.Shard. Rows without uploads, which are nearly all, go the shorter way."""
    if not any(row.upload_ids for row in rows):
        return await sql_writes.create_submissions(server, rows)
    with_files = [index for index, row in enumerate(rows) if row.upload_ids]
    without = [index for index, row in enumerate(rows) if not row.upload_ids]
    first, lsn = await _create_with_uploads(server, [rows[index] for index in with_files])
    results = dict(zip(with_files, first, strict=True))
    if without:
        others, lsn = await sql_writes.create_submissions(server, [rows[index] for index in without])
        results.update(zip(without, others, strict=True))
    return [results[index] for index in range(len(rows))], lsn


async def _create_with_uploads(server: Server, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
    """The submissions, and whose the uploads are from now on, in one transaction."""

    async def work(driver: Driver) -> list[Created]:
        wanted = sorted({(row.tenant, upload_id) for row in rows for upload_id in row.upload_ids})
        free = {(row[4], row[0]): row for row in await driver.fetch(_LOCK, *zip(*wanted, strict=True))}
        taken: set[str] = set()
        good: list[int] = []
        for index, row in enumerate(rows):
            mine = [free.get((row.tenant, upload_id)) for upload_id in row.upload_ids]
            if (
                not row.existing_only
                and taken.isdisjoint(row.upload_ids)
                and all(_fits(one, row) for one in mine)
            ):
                good.append(index)
                taken.update(row.upload_ids)
        results, create = creation(server, [rows[index] for index in good])
        await create(driver)
        created = dict(zip(good, results, strict=True))
        fresh = [rows[index] for index, one in created.items() if one.status is CreateStatus.CREATED]
        pairs = [(row.tenant, upload_id, row.submission_id) for row in fresh for upload_id in row.upload_ids]
        if pairs:
            await driver.fetch(_ATTACH, *zip(*pairs, strict=True))
        # A repetition finds its uploads attached to what it created at first.
        bad = [index for index in range(len(rows)) if index not in created]
        looked, look = creation(server, [rows[index]._replace(existing_only=True) for index in bad])
        await look(driver)
        for index, one in zip(bad, looked, strict=True):
            refused = one.status is CreateStatus.ABSENT and not rows[index].existing_only
            created[index] = one._replace(status=CreateStatus.UPLOAD_REFUSED) if refused else one
        return [created[index] for index in range(len(rows))]

    results = await server.transact(work)
    return results, await server.run(flushed)


def _fits(locked: Sequence[Any] | None, row: NewSubmission) -> bool:
    return (
        locked is not None
        and tuple(locked[1:4]) == (row.course, row.assignment, row.author)
        and locked[5] in (None, row.submission_id)
    )


def upload_row(row: Sequence[Any]) -> Upload:
    """A row with UPLOAD_COLUMNS."""
    return Upload._make((*row[:12], micros(row[12]), micros(row[13]), row[14]))
