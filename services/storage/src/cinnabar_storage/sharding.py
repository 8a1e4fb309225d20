"""Which shard keeps what: buckets, the map from bucket to shard, and calls that touch several shards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from cinnabar_common.errors import DependencyUnavailable, FieldViolation, InvalidRequest, Overloaded
from cinnabar_common.names import BUCKETS, Bucket, bucket_of, id_bucket
from cinnabar_storage.invalidation import Invalidations, NothingCached
from cinnabar_storage.ports import Shard
from cinnabar_storage.records import Lsn, Position

T = TypeVar("T")
K = TypeVar("K")

# A class hands in together: the same authors and courses come again and again.
author_bucket = lru_cache(maxsize=65_536)(bucket_of)


def course_bucket(tenant: str, course: str) -> Bucket:
    """The bucket of a course's assignments and of their revisions."""
    return author_bucket(tenant, f"course:{course}")


class ShardMap:
    """Contiguous ranges of the 1,024 buckets, as equal as can be."""

    def __init__(self, shard_count: int) -> None:
        self.shard_count = shard_count
        self._shards = [bucket * shard_count // BUCKETS for bucket in range(BUCKETS)]

    def shard_of(self, bucket: Bucket) -> int:
        """Index of the shard that keeps ``bucket``."""
        return self._shards[bucket]

    def shard_of_id(self, text: str) -> int | None:
        """Index of the shard that keeps a submission or revision; None for what is no id of ours."""
        bucket = id_bucket(text)
        return None if bucket is None else self._shards[bucket]

    def by_shard(self, keys: Iterable[K], id_of: Callable[[K], str]) -> dict[int, list[K]]:
        """``keys`` without repetitions, by the shard of their id; those that cannot exist are left out."""
        groups: dict[int, list[K]] = {}
        for key in dict.fromkeys(keys):
            shard = self.shard_of_id(id_of(key))
            if shard is not None:
                groups.setdefault(shard, []).append(key)
        return groups


class MinPositions:
    """What a read must show. Positions come from outside and prove nothing: they can only slow a read."""

    def __init__(self, positions: Iterable[Position], shard_count: int) -> None:
        self._lsns: dict[int, Lsn] = {}
        for index, (shard, lsn) in enumerate(positions):
            if not 0 <= shard < shard_count:
                raise InvalidRequest([FieldViolation(f"min_positions[{index}].shard", "no such shard")])
            if lsn < 0:
                raise InvalidRequest([FieldViolation(f"min_positions[{index}].lsn", "must not be negative")])
            self._lsns[shard] = Lsn(max(lsn, self._lsns.get(shard, 0)))

    def of(self, shard: int) -> Lsn:
        """The position for one shard; 0 when nothing is asked of it."""
        return self._lsns.get(shard, Lsn(0))


class Shards:
    """All shards, the map that says what is where, and whom to tell about changes."""

    def __init__(self, shards: Sequence[Shard], *, invalidations: Invalidations | None = None) -> None:
        self.invalidations: Invalidations = invalidations or NothingCached()
        self._shards = tuple(shards)
        self.map = ShardMap(len(self._shards))

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Shard:
        return self._shards[index]

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._shards)

    def of_course(self, tenant: str, course: str) -> tuple[int, Shard]:
        """The shard that keeps a course's assignments, with its index."""
        index = self.map.shard_of(course_bucket(tenant, course))
        return index, self._shards[index]


async def gather(calls: Mapping[int, Coroutine[object, object, T]]) -> dict[int, T]:
    """The results of one call per shard, run together. The first error cancels the others and is raised."""
    if len(calls) == 1:  # most calls touch one shard: spare them the task
        return {shard: await call for shard, call in calls.items()}
    async with asyncio.TaskGroup() as group:
        tasks = {shard: group.create_task(call, name=f"shard-{shard}") for shard, call in calls.items()}
    return {shard: task.result() for shard, task in tasks.items()}


async def gather_reachable(calls: Mapping[int, Coroutine[object, object, T]]) -> dict[int, T]:
    """The results of those shards that can be reached.

    Raises Overloaded when all of them are too busy to say anything.
    """
    answers = await gather({shard: _attempt(call) for shard, call in calls.items()})
    overloads = [answer for answer in answers.values() if isinstance(answer, Overloaded)]
    if answers and len(overloads) == len(answers):
        raise overloads[0]
    return {
        shard: answer[0]
        for shard, answer in answers.items()
        if not isinstance(answer, Overloaded | DependencyUnavailable)
    }


async def gather_partly(calls: Mapping[int, Coroutine[object, object, T]]) -> tuple[dict[int, T], list[int]]:
    """The results of those shards that can be reached, and which others there are.

    Raises DependencyUnavailable when none can be reached, Overloaded when one of them is too busy.
    """
    answers = await gather({shard: _attempt(call) for shard, call in calls.items()})
    reached: dict[int, T] = {}
    silent: list[int] = []
    for shard, answer in answers.items():
        if isinstance(answer, Overloaded):
            raise answer
        if isinstance(answer, DependencyUnavailable):
            silent.append(shard)
            if len(silent) == len(answers):
                raise answer
        else:
            reached[shard] = answer[0]
    return reached, silent


async def _attempt(call: Coroutine[object, object, T]) -> tuple[T] | Overloaded | DependencyUnavailable:
    try:
        return (await call,)
    except (Overloaded, DependencyUnavailable) as error:
        return error
