"""Tasks: outcomes under their fence, dead letters, and what recovery needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import id_bucket
from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import (
    ANYWHERE,
    CommitResult,
    DeadLetter,
    DeadLetterPage,
    DeadLetterQuery,
    Lsn,
    OpenTask,
    Outcome,
    OwnedTaskKey,
    Place,
    Position,
    RedriveResult,
    TaskCounts,
    TaskKey,
)
from cinnabar_storage.shards.sharding import Shards


class Tasks:
    """The grading tasks of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def commit(self, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], list[Position]]:
        """One result per outcome, in order, and the positions at which they can be read.

        Outcomes of a shard that cannot be reached are UNAVAILABLE; those of an
        id that cannot exist are SUPERSEDED. Raises Overloaded.
        """
        # One bad id must not hold up the outcomes of everybody else.
        results = [CommitResult.SUPERSEDED] * len(outcomes)
        parts, silent = await self._shards.each_reachable(
            range(len(outcomes)),
            lambda index: id_bucket(outcomes[index].submission_id),
            lambda _, shard, indexes: shard.commit_outcomes([outcomes[index] for index in indexes]),
        )
        positions: list[Position] = []
        for shard, indexes, (committed, lsn) in parts:
            for index, result in zip(indexes, committed, strict=True):
                results[index] = result
            position = self._shards.position(shard, lsn)
            positions.append(position)
            # Refused ones too: an attempt before, of which no answer came back, may have written them.
            self._shards.invalidations.changed(
                [submission_key(outcomes[index][0], outcomes[index][1]) for index in indexes], position
            )
        for index in silent:
            results[index] = CommitResult.UNAVAILABLE
        return results, positions

    async def redrive(
        self, tenant: str, keys: Sequence[TaskKey], actor: str, place: Place = ANYWHERE
    ) -> tuple[list[RedriveResult], list[OpenTask], list[Position]]:
        """Opens dead letters again; others stay as they are, and so do those of another ``place``.

        One result per key, in order, as if they had been redriven in order: of a
        key that comes twice the first is REDRIVEN. And the tasks that were
        redriven, as many as MAX_PAGE_BYTES of answers allow; recovery queues the
        rest. And the positions at which this can be read. Keys of a shard that
        cannot be reached are UNAVAILABLE. Raises Overloaded.
        """
        wanted = list(dict.fromkeys(keys))
        parts, silent = await self._shards.each_reachable(
            wanted,
            lambda key: id_bucket(key.submission_id),
            lambda _, shard, group: shard.redrive_tasks(tenant, group, actor, place),
        )
        positions = [self._shards.position(part.shard, part.answer[1]) for part in parts]
        for part, position in zip(parts, positions, strict=True):
            self._shards.invalidations.changed(
                [submission_key(tenant, wanted[index].submission_id) for index in part.indexes], position
            )
        fates = {wanted[index]: RedriveResult.UNAVAILABLE for index in silent}
        opened: list[OpenTask] = []
        room = MAX_PAGE_BYTES
        for _, indexes, (redriven, _) in parts:
            for index, (result, task) in zip(indexes, redriven, strict=True):
                fates[wanted[index]] = result
                if task is not None and (not opened or len(task.answers) <= room):
                    room -= len(task.answers)
                    opened.append(task)
        results: list[RedriveResult] = []
        for key in keys:
            result = fates.get(key, RedriveResult.NOT_FOUND)
            results.append(result)
            if result is RedriveResult.REDRIVEN:
                fates[key] = RedriveResult.NOT_DEAD_OPEN
        return results, opened, positions

    async def open_generations(self, keys: Sequence[OwnedTaskKey]) -> list[int | None]:
        """Of each task, in order, the generation that is open; 0 when none is.

        None when its shard cannot be reached. Reads the primaries. Raises Overloaded.
        """
        parts, silent = await self._shards.each_reachable(
            keys,
            lambda key: id_bucket(key.submission_id),
            lambda _, shard, group: shard.read_primary(lambda copy: copy.open_generations(group)),
        )
        generations: list[int | None] = [0] * len(keys)
        for _, indexes, found in parts:
            for index, generation in zip(indexes, found, strict=True):
                generations[index] = generation
        for index in silent:
            generations[index] = None
        return generations

    async def count(self, shard: int) -> TaskCounts:
        """The tasks of one shard in one snapshot, which may be a little old.

        Raises InvalidRequest for a shard there is not, DependencyUnavailable, Overloaded.
        """
        return await self._shards.whole(self._checked(shard), lambda held: held.count_tasks())

    async def count_all(self) -> TaskCounts:
        """The tasks of all shards, each bucket once, whatever moves meanwhile.

        Every shard is counted in a snapshot of its own. Raises DependencyUnavailable, Overloaded.
        """
        counts = await self._shards.scatter(lambda _, shard: shard.count_tasks())
        return TaskCounts._make(map(sum, zip(*counts.values(), strict=True)))

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self._shards):
            raise InvalidRequest([FieldViolation("shard", "no such shard")])
        return index

    async def open(
        self, shard: int, after: TaskKey, limit: int, min_epoch: int = 0
    ) -> tuple[list[OpenTask], bool]:
        """Open tasks of one shard in the order of their keys, from the primary, and whether there are more.

        The page ends at MAX_PAGE_BYTES of answers, but has at least one task. Whose the buckets are is as
        of ``min_epoch`` or later.

        Raises InvalidRequest for a shard there is not, DependencyUnavailable, Overloaded.
        """
        await self._shards.minimum([Position(0, Lsn(0), min_epoch)])
        return await self._shards.whole(
            self._checked(shard),
            lambda held: held.read_primary(lambda copy: copy.open_tasks(after, limit)),
        )

    async def arrivals(self) -> tuple[int, list[int]]:
        """The epoch of the map, and of each shard the one in which a bucket last came to it; as of now."""
        now = await self._shards.fresh_map()
        return now.epoch, [now.arrival(index) for index in range(len(self._shards))]

    async def dead_letters(self, query: DeadLetterQuery) -> DeadLetterPage:
        """A page of a tenant's dead letters, of at most MAX_PAGE_BYTES of reasons but at least one.

        What is on shards that cannot be reached is missing, and they are named.
        Raises Overloaded, and DependencyUnavailable when no shard can be reached.
        """
        room = MAX_PAGE_BYTES // len(self._shards)
        answers, silent = await self._shards.scatter_partly(
            lambda _, shard: shard.read_primary(lambda copy: copy.dead_letters(query, max_bytes=room))
        )
        merged = sorted(chain.from_iterable(page.letters for page in answers.values()), key=_letter_key)
        # A shard that has more says nothing of what comes after the last that it gave.
        ends = [_letter_key(page.letters[-1]) for page in answers.values() if page.more]
        known = [letter for letter in merged if not ends or _letter_key(letter) <= min(ends)]
        return DeadLetterPage(known[: query.limit], bool(ends) or len(known) > query.limit, silent)


def _letter_key(letter: DeadLetter) -> TaskKey:
    return TaskKey(letter.task.submission_id, letter.task.item_id)
