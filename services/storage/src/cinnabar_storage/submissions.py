"""Submissions: create, cancel, read and list, over all shards."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from itertools import chain

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import id_bucket
from cinnabar_storage.invalidation import submission_key
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
from cinnabar_storage.sharding import (
    MinPositions,
    Shards,
    author_bucket,
    gather,
    gather_partly,
    gather_reachable,
)

Bodies = tuple[list[Submission], list[SubmissionKey]]
"""Submissions, and those that there was no room for."""


def _submission_id(key: SubmissionKey) -> str:
    return key.submission_id


class Submissions:
    """The submissions of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def create(self, rows: Sequence[NewSubmission]) -> tuple[list[Created], list[Position]]:
        """One result per row, in order, and the positions at which they can be read.

        Rows of a shard that cannot be reached are UNAVAILABLE. Raises
        InvalidRequest when an id is not in its author's bucket, Overloaded.
        """
        groups = self._by_shard(rows)
        answers = await gather_reachable(
            {
                shard: self._shards[shard].create_submissions([rows[index] for index in indexes])
                for shard, indexes in groups.items()
            }
        )
        results = [Created(CreateStatus.UNAVAILABLE, row.submission_id) for row in rows]
        positions: list[Position] = []
        for shard, (created, lsn) in answers.items():
            for index, result in zip(groups[shard], created, strict=True):
                results[index] = result
            positions.append(Position(shard, lsn))
        return results, positions

    def _by_shard(self, rows: Sequence[NewSubmission]) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        shard_of = self._shards.map.shard_of
        for index, row in enumerate(rows):
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
            groups.setdefault(shard_of(bucket), []).append(index)
        return groups

    async def cancel(
        self, keys: Sequence[SubmissionKey], actor: str
    ) -> tuple[list[Task], list[Position], list[SubmissionKey]]:
        """Cancels their open tasks.

        Returns these, where that can be read, and the submissions whose shard
        could not be reached. Raises Overloaded.
        """
        groups = self._shards.map.by_shard(keys, _submission_id)
        answers = await gather_reachable(
            {shard: self._shards[shard].cancel_submissions(group, actor) for shard, group in groups.items()}
        )
        cancelled = list(chain.from_iterable(tasks for tasks, _ in answers.values()))
        positions = [Position(shard, lsn) for shard, (_, lsn) in answers.items()]
        for position in positions:
            self._shards.invalidations.changed(
                [submission_key(*key) for key in groups[position.shard]], position
            )
        silent = [key for shard, group in groups.items() if shard not in answers for key in group]
        return cancelled, positions, silent

    async def get(self, keys: Sequence[SubmissionKey], positions: Sequence[Position]) -> Bodies:
        """Those that exist, in any order, and those that there was no room for.

        They share MAX_PAGE_BYTES of answers and grades, each shard a part of it.
        Of each shard the first of ``keys`` is given, and from the first that is
        left out none. Raises InvalidRequest, DependencyUnavailable, Overloaded.
        """
        return _together(await gather(self._gets(keys, positions)))

    def _gets(
        self, keys: Sequence[SubmissionKey], positions: Sequence[Position]
    ) -> dict[int, Coroutine[object, object, Bodies]]:
        minimum = MinPositions(positions, len(self._shards))
        groups = self._shards.map.by_shard(keys, _submission_id)
        return {
            shard: _get(self._shards[shard], group, minimum.of(shard), MAX_PAGE_BYTES // len(groups))
            for shard, group in groups.items()
        }

    async def list(self, query: SubmissionQuery, positions: Sequence[Position]) -> SubmissionPage:
        """A page, newest first, of at most MAX_PAGE_BYTES of answers and grades but at least one row.

        What is on shards that cannot be reached is missing, and they are named.
        The page is whole for all others, and so is the list of its successors.

        Raises InvalidRequest, Overloaded, and DependencyUnavailable when nothing can be said.
        """
        minimum = MinPositions(positions, len(self._shards))
        if query.author:
            wanted = [self._shards.map.shard_of(author_bucket(query.tenant, query.author))]
        else:
            wanted = list(range(len(self._shards)))
        one_more = query._replace(limit=query.limit + 1)

        async def ids(shard: int) -> list[str]:
            return await self._shards[shard].read(
                lambda copy: copy.submission_ids(one_more), min_lsn=minimum.of(shard)
            )

        offered, silent = await gather_partly({shard: ids(shard) for shard in wanted})
        page = sorted(chain.from_iterable(offered.values()), reverse=True)
        # Bodies are read for the page only, not for what each shard offered. A
        # replica that is behind the one that gave the id is made up for by the primary.
        bodies, lost = await gather_partly(
            self._gets([SubmissionKey(query.tenant, key) for key in page[: query.limit]], positions)
        )
        found, left_out = _together(bodies)
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
        index = self._shards.map.shard_of_id(key.submission_id)
        if index is None:
            return None
        shard = self._shards[index]

        async def work(copy: Copy) -> tuple[list[Submission], Lsn, bool]:
            shows = copy.shows
            return (await copy.submissions([key], max_bytes=MAX_PAGE_BYTES))[0], shows, copy.authoritative

        minimum = MinPositions(positions, len(self._shards)).of(index)
        found, shows, authoritative = await shard.read(work, min_lsn=minimum)
        if not found and not authoritative:
            found, shows, _ = await shard.read_primary(work)
        return (found[0], Position(index, shows)) if found else None


def _together(parts: Mapping[int, Bodies]) -> Bodies:
    found = list(chain.from_iterable(found for found, _ in parts.values()))
    return found, list(chain.from_iterable(left_out for _, left_out in parts.values()))


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
