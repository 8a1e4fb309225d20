"""Tasks: outcomes under their fence, dead letters, and what recovery needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage.invalidation import submission_key
from cinnabar_storage.ports import MAX_PAGE_BYTES, Shard
from cinnabar_storage.records import (
    CommitResult,
    DeadLetter,
    DeadLetterPage,
    DeadLetterQuery,
    OpenTask,
    Outcome,
    OwnedTaskKey,
    Position,
    RedriveResult,
    TaskCounts,
    TaskKey,
)
from cinnabar_storage.sharding import Shards, gather_partly, gather_reachable


class Tasks:
    """The grading tasks of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def commit(self, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], list[Position]]:
        """One result per outcome, in order, and the positions at which they can be read.

        Outcomes of a shard that cannot be reached are UNAVAILABLE; those of an
        id that cannot exist are SUPERSEDED. Raises Overloaded.
        """
        groups: dict[int, list[int]] = {}
        results: list[CommitResult] = [CommitResult.UNAVAILABLE] * len(outcomes)
        shard_of_id = self._shards.map.shard_of_id
        for index, outcome in enumerate(outcomes):
            shard = shard_of_id(outcome.submission_id)
            if shard is None:
                # One bad id must not hold up the outcomes of everybody else.
                results[index] = CommitResult.SUPERSEDED
            else:
                groups.setdefault(shard, []).append(index)
        answers = await gather_reachable(
            {
                shard: self._shards[shard].commit_outcomes([outcomes[index] for index in indexes])
                for shard, indexes in groups.items()
            }
        )
        positions: list[Position] = []
        for shard, (committed, lsn) in answers.items():
            for index, result in zip(groups[shard], committed, strict=True):
                results[index] = result
            position = Position(shard, lsn)
            positions.append(position)
            # Refused ones too: an attempt before, of which no answer came back, may have written them.
            self._shards.invalidations.changed(
                [submission_key(outcomes[index][0], outcomes[index][1]) for index in groups[shard]], position
            )
        return results, positions

    async def redrive(
        self, tenant: str, keys: Sequence[TaskKey], actor: str
    ) -> tuple[list[RedriveResult], list[OpenTask], list[Position]]:
        """Opens dead letters again; others stay as they are.

        One result per key, in order, as if they had been redriven in order: of a
        key that comes twice the first is REDRIVEN. And the tasks that were
        redriven, as many as MAX_PAGE_BYTES of answers allow; recovery queues the
        rest. And the positions at which this can be read. Keys of a shard that
        cannot be reached are UNAVAILABLE. Raises Overloaded.
        """
        groups = self._shards.map.by_shard(keys, lambda key: key.submission_id)
        answers = await gather_reachable(
            {
                shard: self._shards[shard].redrive_tasks(tenant, group, actor)
                for shard, group in groups.items()
            }
        )
        for shard, (_, lsn) in answers.items():
            self._shards.invalidations.changed(
                [submission_key(tenant, key.submission_id) for key in groups[shard]], Position(shard, lsn)
            )
        fates: dict[TaskKey, RedriveResult] = {}
        opened: list[OpenTask] = []
        room = MAX_PAGE_BYTES
        for shard, group in groups.items():
            redriven = answers[shard][0] if shard in answers else repeat((RedriveResult.UNAVAILABLE, None))
            for key, (result, task) in zip(group, redriven, strict=False):
                fates[key] = result
                if task is not None and (not opened or len(task.answers) <= room):
                    room -= len(task.answers)
                    opened.append(task)
        results: list[RedriveResult] = []
        for key in keys:
            result = fates.get(key, RedriveResult.NOT_FOUND)
            results.append(result)
            if result is RedriveResult.REDRIVEN:
                fates[key] = RedriveResult.NOT_DEAD_OPEN
        return results, opened, [Position(shard, lsn) for shard, (_, lsn) in answers.items()]

    async def open_generations(self, keys: Sequence[OwnedTaskKey]) -> list[int | None]:
        """Of each task, in order, the generation that is open; 0 when none is.

        None when its shard cannot be reached. Reads the primaries. Raises Overloaded.
        """
        groups: dict[int, list[int]] = {}
        generations: list[int | None] = [None] * len(keys)
        for index, key in enumerate(keys):
            shard = self._shards.map.shard_of_id(key.submission_id)
            if shard is None:
                generations[index] = 0
            else:
                groups.setdefault(shard, []).append(index)
        answers = await gather_reachable(
            {
                shard: self._read_generations(shard, [keys[index] for index in indexes])
                for shard, indexes in groups.items()
            }
        )
        for shard, found in answers.items():
            for index, generation in zip(groups[shard], found, strict=True):
                generations[index] = generation
        return generations

    async def _read_generations(self, shard: int, keys: Sequence[OwnedTaskKey]) -> list[int]:
        return await self._shards[shard].read_primary(lambda copy: copy.open_generations(keys))

    async def count(self, shard: int) -> TaskCounts:
        """The tasks of one shard in one snapshot, which may be a little old.

        Raises InvalidRequest for a shard there is not, DependencyUnavailable, Overloaded.
        """
        return await self._shard(shard).count_tasks()

    def _shard(self, index: int) -> Shard:
        if not 0 <= index < len(self._shards):
            raise InvalidRequest([FieldViolation("shard", "no such shard")])
        return self._shards[index]

    async def open(self, shard: int, after: TaskKey, limit: int) -> tuple[list[OpenTask], bool]:
        """Open tasks of one shard in the order of their keys, from the primary, and whether there are more.

        The page ends at MAX_PAGE_BYTES of answers, but has at least one task.

        Raises InvalidRequest for a shard there is not, DependencyUnavailable, Overloaded.
        """
        return await self._shard(shard).read_primary(lambda copy: copy.open_tasks(after, limit))

    async def dead_letters(self, query: DeadLetterQuery) -> DeadLetterPage:
        """A page of a tenant's dead letters, of at most MAX_PAGE_BYTES of reasons but at least one.

        What is on shards that cannot be reached is missing, and they are named.
        Raises Overloaded, and DependencyUnavailable when no shard can be reached.
        """
        room = MAX_PAGE_BYTES // len(self._shards)
        answers, silent = await gather_partly(
            {
                index: shard.read_primary(lambda copy: copy.dead_letters(query, max_bytes=room))
                for index, shard in enumerate(self._shards)
            }
        )
        merged = sorted(chain.from_iterable(page.letters for page in answers.values()), key=_letter_key)
        # A shard that has more says nothing of what comes after the last that it gave.
        ends = [_letter_key(page.letters[-1]) for page in answers.values() if page.more]
        known = [letter for letter in merged if not ends or _letter_key(letter) <= min(ends)]
        return DeadLetterPage(known[: query.limit], bool(ends) or len(known) > query.limit, silent)


def _letter_key(letter: DeadLetter) -> TaskKey:
    return TaskKey(letter.task.submission_id, letter.task.item_id)
