"""Grades that wait for a person, over all shards."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from cinnabar_common.errors import ResourceNotFound
from cinnabar_common.names import id_bucket
from cinnabar_storage.ports import Shard
from cinnabar_storage.records import Position
from cinnabar_storage.reviewing.waiting_records import Acceptance, Accepted, ReviewQuery, WaitingReview
from cinnabar_storage.shards.sharding import Shards


class ReviewPage(NamedTuple):
    """A part of the list, whether it goes on, and the shards whose reviews are missing."""

    reviews: Sequence[WaitingReview]
    more: bool
    unreachable: Sequence[int]


class WaitingReviews:
    """The reviews of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def list(self, query: ReviewQuery, positions: Sequence[Position]) -> ReviewPage:
        """Oldest first. Raises InvalidRequest, Overloaded, DependencyUnavailable when nothing can be said."""
        minimum = await self._shards.minimum(positions)
        one_more = query._replace(limit=query.limit + 1)

        async def waiting(index: int, shard: Shard) -> list[WaitingReview]:
            return await shard.read(lambda copy: copy.waiting_reviews(one_more), min_lsn=minimum.of(index))

        answers, silent = await self._shards.scatter_partly(waiting)
        merged = list(heapq.merge(*answers.values(), key=lambda review: review.cursor))
        return ReviewPage(merged[: query.limit], len(merged) > query.limit, sorted(silent))

    async def accept(self, acceptance: Acceptance) -> tuple[Accepted, Position]:
        """Raises ResourceNotFound, EtagMismatch, DependencyUnavailable, Overloaded."""
        submission_id = acceptance.key.submission_id
        bucket = id_bucket(submission_id)
        if bucket is None:
            raise ResourceNotFound(submission_id)
        [(shard, _, (accepted, lsn))] = await self._shards.each(
            [acceptance], lambda _: bucket, lambda _, shard, __: shard.accept_review(acceptance)
        )
        return accepted, self._shards.position(shard, lsn)
