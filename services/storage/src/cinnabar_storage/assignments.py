"""Assignments and their revisions, which never change."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from itertools import chain

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import Bucket, id_bucket
from cinnabar_storage.cached.invalidation import assignment_key
from cinnabar_storage.ports import Copy, Shard
from cinnabar_storage.records import (
    Assignment,
    AssignmentKey,
    AssignmentPage,
    AssignmentQuery,
    Lsn,
    NewRevision,
    Position,
    RevisionKey,
    RevisionQuery,
)
from cinnabar_storage.shards.sharding import Shards, course_bucket


class Assignments:
    """The assignments of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def create(self, revision: NewRevision) -> tuple[Assignment, Position]:
        """Raises InvalidRequest, ResourceExists, DependencyUnavailable, Overloaded."""
        index, assignment, lsn = await self._shards.at(
            _bucket(revision), lambda index, shard: _placed(index, shard.create_assignment(revision))
        )
        return assignment, self._told(revision, self._shards.position(index, lsn))

    async def update(self, revision: NewRevision, expected_revision_id: str) -> tuple[Assignment, Position]:
        """Raises InvalidRequest, ResourceNotFound, EtagMismatch, DependencyUnavailable, Overloaded."""
        index, assignment, lsn = await self._shards.at(
            _bucket(revision),
            lambda index, shard: _placed(index, shard.update_assignment(revision, expected_revision_id)),
        )
        return assignment, self._told(revision, self._shards.position(index, lsn))

    def _told(self, revision: NewRevision, position: Position) -> Position:
        self._shards.invalidations.changed(
            [assignment_key(revision.tenant, revision.course, revision.assignment)], position
        )
        return position

    async def get(self, keys: Sequence[AssignmentKey], positions: Sequence[Position]) -> list[Assignment]:
        """Those that exist, in any order. Raises InvalidRequest, DependencyUnavailable, Overloaded."""
        minimum = await self._shards.minimum(positions)
        parts = await self._shards.each(
            list(dict.fromkeys(keys)),
            lambda key: course_bucket(key.tenant, key.course),
            lambda index, shard, group: _get(shard, group, minimum.of(index)),
        )
        return list(chain.from_iterable(part.answer for part in parts))

    async def get_one(
        self, key: AssignmentKey, positions: Sequence[Position]
    ) -> tuple[Assignment, Position] | None:
        """An assignment, and which writes of its shard it shows. None when it does not exist.

        Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        minimum = await self._shards.minimum(positions)

        async def work(copy: Copy) -> tuple[list[Assignment], Lsn, bool]:
            shows = copy.shows
            return await copy.assignments([key]), shows, copy.authoritative

        async def read(index: int, shard: Shard) -> tuple[Assignment, Position] | None:
            found, shows, authoritative = await shard.read(work, min_lsn=minimum.of(index))
            if not found and not authoritative:
                found, shows, _ = await shard.read_primary(work)
            return (found[0], self._shards.position(index, shows)) if found else None

        return await self._shards.at(course_bucket(key.tenant, key.course), read)

    async def revisions(self, keys: Sequence[RevisionKey]) -> list[Assignment]:
        """Those that exist, in any order. Raises DependencyUnavailable, Overloaded."""
        parts = await self._shards.each(
            list(dict.fromkeys(keys)),
            lambda key: id_bucket(key.revision_id),
            lambda _, shard, group: _revisions(shard, group),
        )
        return list(chain.from_iterable(part.answer for part in parts))

    async def list(self, query: AssignmentQuery, positions: Sequence[Position]) -> AssignmentPage:
        """A page, by id, of at most MAX_PAGE_BYTES of specs but at least one.

        Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        minimum = await self._shards.minimum(positions)
        return await self._shards.at(
            course_bucket(query.tenant, query.course),
            lambda index, shard: shard.read(
                lambda copy: copy.assignments_of_course(query), min_lsn=minimum.of(index)
            ),
        )

    async def revision_ids(self, query: RevisionQuery) -> list[str]:
        """A page, newest first, from the primary. Raises DependencyUnavailable, Overloaded."""
        return await self._shards.at(
            course_bucket(query.tenant, query.course),
            lambda _, shard: shard.read_primary(lambda copy: copy.revision_ids(query)),
        )


def _bucket(revision: NewRevision) -> Bucket:
    bucket = course_bucket(revision.tenant, revision.course)
    if id_bucket(revision.revision_id) != bucket:
        raise InvalidRequest(
            [FieldViolation("assignment.revision_id", "must be an id in the bucket of its course")]
        )
    return bucket


async def _placed(index: int, call: Awaitable[tuple[Assignment, Lsn]]) -> tuple[int, Assignment, Lsn]:
    return index, *await call


async def _get(shard: Shard, keys: Sequence[AssignmentKey], min_lsn: Lsn) -> list[Assignment]:
    async def work(copy: Copy) -> tuple[list[Assignment], bool]:
        return await copy.assignments(keys), copy.authoritative

    found, authoritative = await shard.read(work, min_lsn=min_lsn)
    if authoritative or len(found) == len(keys):
        return found
    # A key without a revision and one that names it may both have found the same.
    here = {AssignmentKey(*assignment[:4]) for assignment in found}
    current = {key._replace(revision_id="") for key in here}
    missing = [key for key in keys if key not in here and key not in current]
    return found + await shard.read_primary(lambda copy: copy.assignments(missing)) if missing else found


async def _revisions(shard: Shard, keys: Sequence[RevisionKey]) -> list[Assignment]:
    async def work(copy: Copy) -> tuple[list[Assignment], bool]:
        return await copy.revisions(keys), copy.authoritative

    found, authoritative = await shard.read(work, min_lsn=Lsn(0))
    if authoritative or len(found) == len(keys):
        return found
    here = {revision.revision_id for revision in found}
    missing = [key for key in keys if key.revision_id not in here]
    return found + await shard.read_primary(lambda copy: copy.revisions(missing))
