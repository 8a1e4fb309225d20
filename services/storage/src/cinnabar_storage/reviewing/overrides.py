"""Reviews: grades that people give, the history of grades, and the audit with its seals."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from cinnabar_common.errors import FieldViolation, InvalidRequest, ResourceNotFound
from cinnabar_common.names import id_bucket
from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.records import Micros, Position, SubmissionKey
from cinnabar_storage.reviewing.records import GradingQuery, Gradings, Overridden, Override
from cinnabar_storage.shards.sharding import MinPositions, Shards, gather
from cinnabar_storage.trail.audit import (
    AuditCursor,
    AuditEvent,
    AuditQuery,
    Break,
    SealLink,
    SealPage,
    breaks_of,
)


class AuditPage(NamedTuple):
    """A part of the audit of a submission, each event with its place, and whether it goes on."""

    events: Sequence[tuple[AuditCursor, AuditEvent]]
    more: bool


class SealCheck(NamedTuple):
    """What some seals of a shard say; ``link`` is the last one checked so far."""

    page: SealPage
    breaks: list[Break]
    link: SealLink


class Reviews:
    """What people see and change of grades, over all shards."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def override(self, override: Override) -> tuple[Overridden, Position]:
        """Raises ResourceNotFound, EtagMismatch, DependencyUnavailable, Overloaded."""
        tenant, submission_id = override.key
        bucket = id_bucket(submission_id)
        if bucket is None:
            raise ResourceNotFound(submission_id)
        [(shard, _, (overridden, lsn))] = await self._shards.each(
            [override], lambda _: bucket, lambda _, shard, __: shard.override_grade(override)
        )
        position = self._shards.position(shard, lsn)
        self._shards.invalidations.changed([submission_key(tenant, submission_id)], position)
        return overridden, position

    async def gradings(self, query: GradingQuery, positions: Sequence[Position]) -> Gradings:
        """Raises InvalidRequest, DependencyUnavailable, Overloaded."""
        minimum = await self._shards.minimum(positions)
        bucket = id_bucket(query.key.submission_id)
        if bucket is None:
            return Gradings([], more=False)
        return await self._shards.at(
            bucket,
            lambda index, shard: shard.read(lambda copy: copy.gradings(query), min_lsn=minimum.of(index)),
        )

    async def audit_events(
        self, key: SubmissionKey, after: AuditCursor | None, limit: int, positions: Sequence[Position]
    ) -> AuditPage:
        """By time, number and shard. Raises InvalidRequest, DependencyUnavailable, Overloaded."""
        minimum = MinPositions(positions)

        async def events(shard: int) -> list[tuple[AuditCursor, AuditEvent]]:
            query = _query(key, after, shard, limit + 1)
            found = await self._shards[shard].read(
                lambda copy: copy.audit_events(query), min_lsn=minimum.of(shard)
            )
            return [(AuditCursor(event.at, event.audit_id, shard), event) for event in found]

        # The audit stays where it was written: any shard may have had the bucket.
        answers = await gather({shard: events(shard) for shard in range(len(self._shards))})
        merged = list(heapq.merge(*answers.values(), key=lambda pair: pair[0]))
        return AuditPage(merged[:limit], more=len(merged) > limit)

    async def check_seals(self, shard: int, after: SealLink) -> SealCheck:
        """The next seals of one shard. Raises InvalidRequest, DependencyUnavailable, Overloaded."""
        if not 0 <= shard < len(self._shards):
            raise InvalidRequest([FieldViolation("shard", "no such shard")])
        page = await self._shards[shard].check_seals(after)
        return SealCheck(page, breaks_of(after, page), page.seals[-1].link if page.seals else after)


def _query(key: SubmissionKey, after: AuditCursor | None, shard: int, limit: int) -> AuditQuery:
    """What comes after a place in the merged list, on one shard of it."""
    if after is None:
        return AuditQuery(key, at=_BEGIN.at, audit_id=_BEGIN.audit_id, exclusive=False, limit=limit)
    return AuditQuery(key, after.at, after.audit_id, exclusive=shard <= after.shard, limit=limit)


_BEGIN = AuditCursor(Micros(0), -(2**63), 0)
