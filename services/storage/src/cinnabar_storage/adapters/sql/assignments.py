"""Writes of assignments of one shard. Each is one statement, which is its transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cinnabar_common.errors import EtagMismatch, ResourceExists, ResourceNotFound
from cinnabar_common.names import AssignmentName
from cinnabar_storage.adapters.sql.server import Driver, Server, UniqueViolation, flushed
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.records import Assignment, Lsn, NewRevision

_CREATE_ASSIGNMENT = """
WITH created AS (
    INSERT INTO assignments (tenant, course, assignment, revision_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING
    RETURNING tenant, course, assignment, revision_id, create_time
), revised AS (
    INSERT INTO assignment_revisions (tenant, course, assignment, revision_id, spec)
    SELECT tenant, course, assignment, revision_id, $5 FROM created
)
SELECT create_time, create_time FROM created
"""
_UPDATE_ASSIGNMENT = """
WITH updated AS (
    UPDATE assignments SET revision_id = $4
    WHERE tenant = $1 AND course = $2 AND assignment = $3 AND revision_id <> $4
        AND ($6 = '' OR revision_id = $6)
    RETURNING tenant, course, assignment, revision_id, create_time
), revised AS (
    INSERT INTO assignment_revisions (tenant, course, assignment, revision_id, spec)
    SELECT tenant, course, assignment, revision_id, $5 FROM updated
)
SELECT create_time, now() FROM updated
"""
_CURRENT = """
SELECT a.create_time, r.create_time, r.revision_id = $4 AND r.spec = $5
FROM assignments a JOIN assignment_revisions r ON r.tenant = a.tenant AND r.revision_id = a.revision_id
WHERE a.tenant = $1 AND a.course = $2 AND a.assignment = $3
"""


async def create_assignment(server: Server, revision: NewRevision) -> tuple[Assignment, Lsn]:
    """See ports.Shard."""
    name = str(AssignmentName(revision.course, revision.assignment))

    async def work(driver: Driver) -> tuple[Assignment, Lsn]:
        row = await driver.fetchrow(_CREATE_ASSIGNMENT, *_revision_args(revision))
        if row is None:
            row = await driver.fetchrow(_CURRENT, *_revision_args(revision))
            if row is None or not row[2]:
                raise ResourceExists(name)
        return _assignment(revision, row), await flushed(driver)

    try:
        return await server.run(work)
    except UniqueViolation as error:
        raise ResourceExists(f"{name}@{revision.revision_id}") from error


async def update_assignment(
    server: Server, revision: NewRevision, expected_revision_id: str
) -> tuple[Assignment, Lsn]:
    """See ports.Shard."""
    name = str(AssignmentName(revision.course, revision.assignment))

    async def work(driver: Driver) -> tuple[Assignment, Lsn]:
        row = await driver.fetchrow(_UPDATE_ASSIGNMENT, *_revision_args(revision), expected_revision_id)
        if row is None:
            row = await driver.fetchrow(_CURRENT, *_revision_args(revision))
            if row is None:
                raise ResourceNotFound(name)
            if not row[2]:
                raise EtagMismatch(name)
        return _assignment(revision, row), await flushed(driver)

    try:
        return await server.run(work)
    except UniqueViolation as error:
        raise ResourceExists(f"{name}@{revision.revision_id}") from error


def _revision_args(revision: NewRevision) -> tuple[Any, ...]:
    return (
        revision.tenant,
        revision.course,
        revision.assignment,
        revision.revision_id,
        revision.spec,
    )


def _assignment(revision: NewRevision, row: Sequence[Any]) -> Assignment:
    return Assignment(*revision, create_time=micros(row[0]), update_time=micros(row[1]))
