"""What is read through the cache, as it is answered with: encoded once, by whoever read it from Postgres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.cache import Cache, Loaded
from cinnabar_storage.cached.invalidation import CacheKey, assignment_key, revision_key, submission_key
from cinnabar_storage.records import (
    Assignment,
    AssignmentKey,
    Lsn,
    Position,
    RevisionKey,
    Submission,
    SubmissionKey,
)
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions


class CachedReads:
    """Single submissions, current assignments, revisions. Nothing is remembered as absent."""

    def __init__(
        self,
        cache: Cache,
        shards: Shards,
        submissions: Submissions,
        assignments: Assignments,
        *,
        encode_submission: Callable[[Submission], bytes],
        encode_assignment: Callable[[Assignment], bytes],
    ) -> None:
        self._cache = cache
        self._shards = shards
        self._submissions = submissions
        self._assignments = assignments
        self._encode_submission = encode_submission
        self._encode_assignment = encode_assignment

    async def submission(self, key: SubmissionKey, positions: Sequence[Position]) -> bytes | None:
        """A submission, if it exists. Raises InvalidRequest, DependencyUnavailable, Overloaded."""
        minimum = await self._shards.minimum(positions)
        shard = self._shards.map.shard_of_id(key.submission_id)
        if shard is None:
            return None

        async def load(lsn: Lsn) -> Loaded | None:
            read = await self._submissions.get_one(key, [Position(shard, lsn)])
            return None if read is None else Loaded(self._encode_submission(read[0]), read[1])

        return await self._cache.get(
            "submission", submission_key(*key), Position(shard, minimum.of(shard)), load
        )

    async def assignment(self, key: AssignmentKey, positions: Sequence[Position]) -> bytes | None:
        """An assignment in its current revision; the key names none.

        None when it does not exist. Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        minimum = await self._shards.minimum(positions)
        shard, _ = self._shards.of_course(key.tenant, key.course)

        async def load(lsn: Lsn) -> Loaded | None:
            read = await self._assignments.get_one(key, [Position(shard, lsn)])
            return None if read is None else Loaded(self._encode_assignment(read[0]), read[1])

        return await self._cache.get(
            "assignment", assignment_key(*key[:3]), Position(shard, minimum.of(shard)), load
        )

    async def revisions(self, keys: Sequence[RevisionKey]) -> list[bytes]:
        """Those that exist, in any order. Raises DependencyUnavailable, Overloaded."""
        wanted = {revision_key(*key): key for key in keys}

        async def load(missing: Sequence[CacheKey]) -> Mapping[CacheKey, bytes]:
            found = await self._assignments.revisions([wanted[key] for key in missing])
            return {
                revision_key(revision.tenant, revision.revision_id): self._encode_assignment(revision)
                for revision in found
            }

        return list((await self._cache.get_lasting("revision", list(wanted), load)).values())
