"""Submissions: create, cancel, read and list, over all shards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import Bucket, id_bucket
from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.ports import MAX_PAGE_BYTES, Copy, Shard
from cinnabar_storage.records import (
    Created,
    CreateStatus,
    Lsn,
    NewSubmission,
    Position,
    Submission,
    SubmissionKey,
    SubmissionPage,
    SubmissionQuery,
    Task,
)
from cinnabar_storage.shards.sharding import Part, Shards, author_bucket

Bodies = tuple[list[Submission], list[SubmissionKey]]
"""Submissions, and those that there was no room for."""


def _bucket_of(key: SubmissionKey) -> Bucket | None:
    return id_bucket(key.submission_id)


class Submissions:
    """The submissions of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def create(self, rows: Sequence[NewSubmission]) -> tuple[list[Created], list[Position]]:
        """One result per row, in order, and the positions at which they can be read.

        Rows of a shard that cannot be reached are UNAVAILABLE. Raises
        InvalidRequest when an id is not in its author's bucket, Overloaded.
        """
        buckets = [self._bucket(index, row) for index, row in enumerate(rows)]
        parts, _ = await self._shards.each_reachable(
            range(len(rows)),
            lambda index: buckets[index],
            lambda _, shard, indexes: shard.create_submissions([rows[index] for index in indexes]),
        )
        results = [Created(CreateStatus.UNAVAILABLE, row.submission_id) for row in rows]
        positions: list[Position] = []
        for shard, indexes, (created, lsn) in parts:
            for index, result in zip(indexes, created, strict=True):
                results[index] = result
            positions.append(self._shards.position(shard, lsn))
        return results, positions

    def _bucket(self, index: int, row: NewSubmission) -> Bucket:
        bucket = author_bucket(row.tenant, row.author)
        # A row that is only looked for need not have an id.
        if not row.existing_only and id_bucket(row.submission_id) != bucket:
            raise InvalidRequest(
                [
                    FieldViolation(
                        f"submissions[{index}].submission_id", "must be an id in the bucket of its author"
                    )
                ]
            )
        return bucket

    async def cancel(
        self, keys: Sequence[SubmissionKey], actor: str
    ) -> tuple[list[Task], list[Position], list[SubmissionKey]]:
        """Cancels their open tasks.

        Returns these, where that can be read, and the submissions whose shard
        could not be reached. Raises Overloaded.
        """
        keys = list(dict.fromkeys(keys))
        parts, silent = await self._shards.each_reachable(
            keys, _bucket_of, lambda _, shard, group: shard.cancel_submissions(group, actor)
        )
        cancelled = list(chain.from_iterable(part.answer[0] for part in parts))
        positions = [self._shards.position(part.shard, part.answer[1]) for part in parts]
        for part, position in zip(parts, positions, strict=True):
            self._shards.invalidations.changed(
                [submission_key(*keys[index]) for index in part.indexes], position
            )
        return cancelled, positions, [keys[index] for index in silent]

    async def get(self, keys: Sequence[SubmissionKey], positions: Sequence[Position]) -> Bodies:
        """Those that exist, in any order, and those that there was no room for.

        They share MAX_PAGE_BYTES of answers and grades, each shard a part of it.
        Of each shard the first of ``keys`` is given, and from the first that is
        left out none. Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        wanted = list(dict.fromkeys(keys))
        return _together(await self._shards.each(wanted, _bucket_of, await self._reading(wanted, positions)))

    async def _reading(
        self, keys: Sequence[SubmissionKey], positions: Sequence[Position]
    ) -> Callable[[int, Shard, Sequence[SubmissionKey]], Awaitable[Bodies]]:
        minimum = await self._shards.minimum(positions)
        shards = {self._shards.map.shard_of_id(key.submission_id) for key in keys}
        room = MAX_PAGE_BYTES // max(1, len(shards))
        return lambda index, shard, group: _get(shard, group, minimum.of(index), room)

    async def list(self, query: SubmissionQuery, positions: Sequence[Position]) -> SubmissionPage:
        """A page, newest first, of at most MAX_PAGE_BYTES of answers and grades but at least one row.

        What is on shards that cannot be reached is missing, and they are named.
        The page is whole for all others, and so is the list of its successors.

        Raises InvalidRequest, Overloaded, and DependencyUnavailable when nothing can be said.
        """
        minimum = await self._shards.minimum(positions)
        one_more = query._replace(limit=query.limit + 1)

        async def ids(index: int, shard: Shard) -> list[str]:
            return await shard.read(lambda copy: copy.submission_ids(one_more), min_lsn=minimum.of(index))

        silent: list[int] = []
        if query.author:
            offered = [await self._shards.at(author_bucket(query.tenant, query.author), ids)]
        else:
            answers, silent = await self._shards.scatter_partly(ids)
            offered = answers.values()
        page = sorted(chain.from_iterable(offered), reverse=True)
        # Bodies are read for the page only, not for what each shard offered. A
        # replica that is behind the one that gave the id is made up for by the primary.
        keys = [SubmissionKey(query.tenant, key) for key in page[: query.limit]]
        parts, missing = await self._shards.each_partly(
            keys, _bucket_of, await self._reading(keys, positions)
        )
        found, left_out = _together(parts)
        shards = (self._shards.map.shard_of_id(keys[index].submission_id) for index in missing)
        lost = {shard for shard in shards if shard is not None}
        # The page ends before the newest that is left out: what another shard has after it comes again.
        end = max((key.submission_id for key in left_out), default="")
        shown = sorted(
            (submission for submission in found if submission.row.submission_id > end),
            key=lambda submission: submission.row.submission_id,
            reverse=True,
        )
        if not shown and len(page) > query.limit:  # erased meanwhile: a page needs a row to go on from
            return await self.list(query._replace(before=page[query.limit - 1]), positions)
        unreachable = sorted({*silent, *lost})
        return SubmissionPage(shown, bool(left_out) or len(page) > query.limit, unreachable)

    async def get_one(
        self, key: SubmissionKey, positions: Sequence[Position]
    ) -> tuple[Submission, Position] | None:
        """A submission, and which writes of its shard it shows. None when it does not exist.

        Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        bucket = id_bucket(key.submission_id)
        if bucket is None:
            return None
        minimum = await self._shards.minimum(positions)

        async def work(copy: Copy) -> tuple[list[Submission], Lsn, bool]:
            shows = copy.shows
            return (await copy.submissions([key], max_bytes=MAX_PAGE_BYTES))[0], shows, copy.authoritative

        async def read(index: int, shard: Shard) -> tuple[Submission, Position] | None:
            found, shows, authoritative = await shard.read(work, min_lsn=minimum.of(index))
            if not found and not authoritative:
                found, shows, _ = await shard.read_primary(work)
            return (found[0], self._shards.position(index, shows)) if found else None

        return await self._shards.at(bucket, read)


def _together(parts: Sequence[Part[Bodies]]) -> Bodies:
    found = list(chain.from_iterable(part.answer[0] for part in parts))
    return found, list(chain.from_iterable(part.answer[1] for part in parts))


async def _get(shard: Shard, keys: Sequence[SubmissionKey], min_lsn: Lsn, max_bytes: int) -> Bodies:
    async def work(copy: Copy) -> tuple[list[Submission], list[SubmissionKey], bool]:
        return *await copy.submissions(keys, max_bytes=max_bytes), copy.authoritative

    found, left_out, authoritative = await shard.read(work, min_lsn=min_lsn)
    if authoritative or len(found) + len(left_out) == len(keys):
        return found, left_out
    here = {submission.row.submission_id for submission in found}
    here.update(key.submission_id for key in left_out)
    missing = [key for key in keys if key.submission_id not in here]
    newer, newer_left_out = await shard.read_primary(
        lambda copy: copy.submissions(missing, max_bytes=max_bytes)
    )
    return found + newer, left_out + newer_left_out
