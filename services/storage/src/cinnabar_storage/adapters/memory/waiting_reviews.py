"""Reviews that wait for a person, of a shard in memory."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_common.names import id_bucket
from cinnabar_storage.adapters.memory.reviews import MemoryReviews
from cinnabar_storage.records import Lsn, Task, TaskKey, TaskState
from cinnabar_storage.reviewing.waiting_records import Acceptance, Accepted, ReviewQuery, WaitingReview
from cinnabar_storage.shards.bucket_map import ALL_BUCKETS, BucketSet


@dataclass(slots=True)
class MemoryWaitingReviews(MemoryReviews):
    """The part of ports.Shard and ports.Copy that is about them."""

    buckets: BucketSet = ALL_BUCKETS

    async def waiting_reviews(self, query: ReviewQuery) -> list[WaitingReview]:
        found = [
            review
            for key in self._waiting
            if (review := self._review(key)).cursor > query.after
            and self._owner(key.submission_id) == query.tenant
            and query.course in ("", review.course)
            and query.assignment in ("", review.assignment)
            and (not query.flag or query.flag in review.flags)
            and id_bucket(key.submission_id) in self.buckets
        ]
        return sorted(found, key=lambda review: review.cursor)[: query.limit]

    def _review(self, key: TaskKey) -> WaitingReview:
        row = self._submissions[key.submission_id]
        generation, since = self._waiting[key]
        doubt = self._doubts[*key, generation]
        score = self._grades[*key, generation].score
        return WaitingReview(
            key.submission_id,
            key.item_id,
            row.course,
            row.assignment,
            row.author,
            generation,
            doubt.flags,
            score,
            doubt.max_score,
            since,
        )

    async def accept_review(self, acceptance: Acceptance) -> tuple[Accepted, Lsn]:
        tenant, submission_id = acceptance.key
        key = TaskKey(submission_id, acceptance.item_id)
        if key not in self._waiting or self._owner(submission_id) != tenant:
            raise ResourceNotFound(f"{submission_id}/{acceptance.item_id}")
        review = self._review(key)
        if (review.course, review.assignment) != (acceptance.course, acceptance.assignment):
            raise ResourceNotFound(f"{submission_id}/{acceptance.item_id}")
        if acceptance.etag not in ("", self._etag(submission_id)):
            raise EtagMismatch(submission_id)
        del self._waiting[key]
        looked_at = Task(*key, "", review.generation, TaskState.OPEN, "", 0, self._now())
        self._audited(tenant, acceptance.actor, "accept-review", looked_at, detail=acceptance.comment)
        return Accepted(review, self._grades[*key, review.generation]), self._written()
