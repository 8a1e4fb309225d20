"""Statistics of assignments, over all shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.records import Micros
from cinnabar_storage.scoring.records import NOTHING, ScoreStatistics, ScoreSums, plus, statistics_of
from cinnabar_storage.shards.sharding import Shards, gather_reachable


class Statistics:
    """The statistics of all tenants."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def of(
        self, tenant: str, course: str, assignment: str
    ) -> tuple[list[ScoreStatistics], Micros, list[int]]:
        """By item and criterion; as of when; and the shards that could not be reached.

        Raises DependencyUnavailable when none could, Overloaded.
        """
        answers = await gather_reachable(
            {
                index: shard.assignment_scores(tenant, course, assignment)
                for index, shard in enumerate(self._shards)
            }
        )
        if not answers:
            raise DependencyUnavailable("postgres")
        merged = merged_sums(answer.sums for answer in answers.values())
        found = [statistics_of(*key, sums) for key, sums in sorted(merged.items()) if sums.number]
        missing = [index for index in range(len(self._shards)) if index not in answers]
        return found, min(answer.as_of for answer in answers.values()), missing


def merged_sums(parts: Iterable[dict[tuple[str, str], ScoreSums]]) -> dict[tuple[str, str], ScoreSums]:
    """The sums of several shards together."""
    merged: defaultdict[tuple[str, str], ScoreSums] = defaultdict(lambda: NOTHING)
    for part in parts:
        for key, sums in part.items():
            merged[key] = plus(merged[key], sums)
    return dict(merged)
