"""Tasks: outcomes under their fence, dead letters, and what recovery needs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage.records import (
    CommitResult,
    DeadLetter,
    DeadLetterQuery,
    OpenTask,
    Outcome,
    Position,
    TaskKey,
)
from cinnabar_storage.sharding import Shards, gather, gather_reachable


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
            positions.append(Position(shard, lsn))
        return results, positions

    async def redrive(self, tenant: str, keys: Sequence[TaskKey], actor: str) -> list[OpenTask]:
        """Opens dead letters again and returns them; others stay as they are.

        Raises DependencyUnavailable, Overloaded.
        """
        groups = self._shards.map.by_shard(keys, lambda key: key.submission_id)
        answers = await gather(
            {
                shard: self._shards[shard].redrive_tasks(tenant, group, actor)
                for shard, group in groups.items()
            }
        )
        return list(chain.from_iterable(tasks for tasks, _ in answers.values()))

    async def open(self, shard: int, after: TaskKey, limit: int) -> list[OpenTask]:
        """Open tasks of one shard in the order of their keys, from the primary.

        Raises InvalidRequest for a shard there is not, DependencyUnavailable, Overloaded.
        """
        if not 0 <= shard < len(self._shards):
            raise InvalidRequest([FieldViolation("shard", "no such shard")])
        return await self._shards[shard].read_primary(lambda copy: copy.open_tasks(after, limit))

    async def dead_letters(self, query: DeadLetterQuery) -> list[DeadLetter]:
        """A page of a tenant's dead letters over all shards. Raises DependencyUnavailable, Overloaded."""
        answers = await gather(
            {
                index: shard.read_primary(lambda copy: copy.dead_letters(query))
                for index, shard in enumerate(self._shards)
            }
        )
        merged = sorted(
            chain.from_iterable(answers.values()),
            key=lambda letter: (letter.task.submission_id, letter.task.item_id),
        )
        return merged[: query.limit]
