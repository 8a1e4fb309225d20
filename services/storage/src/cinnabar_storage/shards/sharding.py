"""Calls that go where the map of buckets says, to one shard or to several, also while buckets move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Generic, NamedTuple, Protocol, TypeVar, cast

from cinnabar_common.errors import DependencyUnavailable, FieldViolation, InvalidRequest, Overloaded
from cinnabar_common.names import Bucket, bucket_of
from cinnabar_storage.cached.invalidation import Invalidations, NothingCached
from cinnabar_storage.ports import Shard
from cinnabar_storage.records import Lsn, Position
from cinnabar_storage.shards.bucket_map import BucketsElsewhere, BucketSet, ShardMap

T = TypeVar("T")
K = TypeVar("K")

# A class hands in together: the same authors and courses come again and again.
author_bucket = lru_cache(maxsize=65_536)(bucket_of)


def course_bucket(tenant: str, course: str) -> Bucket:
    """The bucket of a course's assignments and of their revisions."""
    return author_bucket(tenant, f"course:{course}")


class MinPositions:
    """What a read must show. Positions come from outside and prove nothing: they can only slow a read."""

    def __init__(self, positions: Iterable[Position]) -> None:
        self._lsns: dict[int, Lsn] = {}
        self.epoch = 0
        for index, (shard, lsn, epoch) in enumerate(positions):
            for name, value in (("shard", shard), ("lsn", lsn), ("epoch", epoch)):
                if value < 0:
                    rule = "must not be negative"
                    raise InvalidRequest([FieldViolation(f"min_positions[{index}].{name}", rule)])
            # One that is not there was drained and removed, or is so new that this process does not know it:
            # then the epoch tells. Callers keep their tokens over both.
            self._lsns[shard] = Lsn(max(lsn, self._lsns.get(shard, 0)))
            self.epoch = max(epoch, self.epoch)

    def of(self, shard: int) -> Lsn:
        """The position for one shard; 0 when nothing is asked of it."""
        return self._lsns.get(shard, Lsn(0))


class Part(NamedTuple, Generic[T]):
    """What one shard answered about some of the items of a call, which are named by their indexes."""

    shard: int
    indexes: list[int]
    answer: T


class MapSource(Protocol):
    """Where the map comes from, and how long a call waits for a bucket that is about to change shards."""

    @property
    def current(self) -> ShardMap:
        """The newest map that is known."""
        ...

    async def refresh(self) -> ShardMap:
        """Asks the shards again. Returns what is known when none of them answers."""
        ...

    async def reach(self, epoch: int) -> None:
        """Returns when the map is of ``epoch`` or later, or no shard knows of such a one.

        Raises DependencyUnavailable when a shard that may know does not answer.
        """
        ...


class FixedMap:
    """Implements MapSource for shards whose buckets do not move."""

    def __init__(self, shard_map: ShardMap) -> None:
        self.current = shard_map

    async def refresh(self) -> ShardMap:
        return self.current

    async def reach(self, epoch: int) -> None:
        return


class Shards:
    """All shards, the map that says what is where, and whom to tell about changes.

    Buckets move while calls are under way. `each`, `at` and `scatter` and their
    variants route by the newest map, hand out shards that refuse what is not
    theirs, and when one refuses they refresh the map and ask again, only for
    what was refused. A write into a fenced bucket waits for the end of the
    fence, for ``patience_seconds`` in all. Calls must be safe to repeat.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        source: MapSource | None = None,
        *,
        invalidations: Invalidations | None = None,
        patience_seconds: float = 2.0,
    ) -> None:
        self.invalidations: Invalidations = invalidations or NothingCached()
        self._shards = tuple(shards)
        self._source = source or FixedMap(ShardMap.contiguous(len(self._shards)))
        self._patience_seconds = patience_seconds

    @property
    def map(self) -> ShardMap:
        """The newest map that is known. It may be another one after the next await."""
        return self._source.current

    async def fresh_map(self) -> ShardMap:
        """The map as the shards say just now."""
        return await self._source.refresh()

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: int) -> Shard:
        return self._shards[index]

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._shards)

    def of_course(self, tenant: str, course: str) -> tuple[int, Shard]:
        """The shard that keeps a course's assignments now, with its index."""
        index = self.map.shard_of(course_bucket(tenant, course))
        return index, self._shards[index]

    def position(self, shard: int, lsn: Lsn) -> Position:
        """Where something can be read that was written just now."""
        return Position(shard, lsn, self.map.epoch)

    async def minimum(self, positions: Sequence[Position]) -> MinPositions:
        """What a read must show; the map is as new as the positions afterwards.

        Raises InvalidRequest, DependencyUnavailable.
        """
        wanted = MinPositions(positions)
        if wanted.epoch > self.map.epoch:
            await self._source.reach(wanted.epoch)
        return wanted

    async def at(self, bucket: Bucket, call: Callable[[int, Shard], Awaitable[T]]) -> T:
        """The answer of the shard that owns ``bucket``; ``call`` gets it and its index.

        Raises what ``call`` raises, and DependencyUnavailable when the bucket stays fenced.
        """
        [part] = await self.each([bucket], _itself, lambda index, shard, _: call(index, shard))
        return part.answer

    async def each(
        self,
        items: Sequence[K],
        bucket_of: Callable[[K], Bucket | None],
        call: Callable[[int, Shard, list[K]], Awaitable[T]],
    ) -> list[Part[T]]:
        """Calls each shard once with its items, or more often where buckets move.

        Items without a bucket are in no part. Raises the first error, and
        DependencyUnavailable when a bucket stays fenced.
        """
        parts, missing = await self._each(items, bucket_of, call, gather)
        if missing:
            raise DependencyUnavailable(_FENCED)
        return parts

    async def each_reachable(
        self,
        items: Sequence[K],
        bucket_of: Callable[[K], Bucket | None],
        call: Callable[[int, Shard, list[K]], Awaitable[T]],
    ) -> tuple[list[Part[T]], list[int]]:
        """As `each`, and the indexes of items whose shard cannot be reached or whose bucket stays fenced.

        Raises Overloaded when all shards are too busy to say anything.
        """
        return await self._each(items, bucket_of, call, gather_reachable)

    async def each_partly(
        self,
        items: Sequence[K],
        bucket_of: Callable[[K], Bucket | None],
        call: Callable[[int, Shard, list[K]], Awaitable[T]],
    ) -> tuple[list[Part[T]], list[int]]:
        """As `each_reachable`, but raises DependencyUnavailable when no shard can be reached.

        Raises Overloaded when one of them is too busy.
        """
        return await self._each(items, bucket_of, call, _gather_partly)

    async def scatter(self, call: Callable[[int, Shard], Awaitable[T]]) -> dict[int, T]:
        """The answers of all shards that own something, by index.

        Each is asked for the buckets that it owns by one and the same map
        (``copy.buckets``), so that each row is seen once. Raises the first error.
        """
        return (await self._scatter(call, gather))[0]

    async def scatter_partly(
        self, call: Callable[[int, Shard], Awaitable[T]]
    ) -> tuple[dict[int, T], list[int]]:
        """As `scatter`, and the indexes of shards that cannot be reached.

        Raises DependencyUnavailable when none can be reached, Overloaded when one of them is too busy.
        """
        return await self._scatter(call, _gather_partly)

    async def whole(self, index: int, call: Callable[[Shard], Awaitable[T]]) -> T:
        """The answer of one shard, asked for all that it owns. Raises what ``call`` raises."""
        waiting = _Patience(self._patience_seconds)
        while True:
            try:
                return await call(self._held(self.map, index))
            except BucketsElsewhere as refusal:
                if not await self._until_settled(refusal.buckets, waiting):
                    raise DependencyUnavailable(_FENCED) from refusal

    def _held(self, now: ShardMap, shard: int) -> Shard:
        return self._shards[shard].holding(now.owned_by(shard), now.version(shard), now.floor(shard))

    async def _each(
        self,
        items: Sequence[K],
        bucket_of: Callable[[K], Bucket | None],
        call: Callable[[int, Shard, list[K]], Awaitable[T]],
        gathering: _Gathering,
    ) -> tuple[list[Part[T]], list[int]]:
        buckets = list(map(bucket_of, items))
        pending: list[int] = [index for index, bucket in enumerate(buckets) if bucket is not None]
        parts: list[Part[T]] = []
        missing: list[int] = []
        waiting = _Patience(self._patience_seconds)
        while pending:
            now = self.map
            groups: dict[int, list[int]] = {}
            for index in pending:
                groups.setdefault(now.owners[cast("Bucket", buckets[index])], []).append(index)

            async def ask(now: ShardMap, shard: int, indexes: list[int]) -> T | BucketsElsewhere:
                wanted = BucketSet(cast("int", buckets[index]) for index in indexes)
                held = self._shards[shard].holding(wanted, now.version(shard), now.floor(shard))
                try:
                    return await call(shard, held, [items[index] for index in indexes])
                except BucketsElsewhere as refusal:
                    return refusal

            answers: dict[int, T | BucketsElsewhere] = {}
            try:
                answers = await gathering({shard: ask(now, shard, group) for shard, group in groups.items()})
            except (DependencyUnavailable, Overloaded):
                if not parts:  # else what was done must be told
                    raise
            refused: set[int] = set()
            pending = []
            for shard, indexes in groups.items():
                if shard not in answers:
                    missing += indexes
                    continue
                answer = answers[shard]
                if isinstance(answer, BucketsElsewhere):
                    refused |= answer.buckets
                    pending += indexes
                else:
                    parts.append(Part(shard, indexes, answer))
            if refused:
                ready = await self._until_settled(refused, waiting)
                missing += [index for index in pending if not ready and buckets[index] in refused]
                pending = [index for index in pending if ready or buckets[index] not in refused]
        return parts, missing

    async def _scatter(
        self, call: Callable[[int, Shard], Awaitable[T]], gathering: _Gathering
    ) -> tuple[dict[int, T], list[int]]:
        waiting = _Patience(self._patience_seconds)
        while True:
            now = self.map
            wanted = [shard for shard in range(len(self._shards)) if now.owned_by(shard)]

            async def ask(now: ShardMap, shard: int) -> T | BucketsElsewhere:
                try:
                    return await call(shard, self._held(now, shard))
                except BucketsElsewhere as refusal:
                    return refusal

            asked = await gathering({shard: ask(now, shard) for shard in wanted})
            answers: dict[int, T] = {}
            refused: set[int] = set()
            for shard, answer in asked.items():
                if isinstance(answer, BucketsElsewhere):
                    refused |= answer.buckets
                else:
                    answers[shard] = answer
            if not refused:
                return answers, [shard for shard in wanted if shard not in answers]
            if not await self._until_settled(refused, waiting):
                raise DependencyUnavailable(_FENCED)

    async def _until_settled(self, buckets: AbstractSet[int], waiting: _Patience) -> bool:
        """Whether buckets that were refused may be asked for again: the map is new, and none is fenced."""
        before = self.map.owners
        fresh = await self._source.refresh()
        while True:
            fenced = not fresh.fenced.isdisjoint(buckets)
            moved = any(before[bucket] != fresh.owners[bucket] for bucket in buckets)
            if moved and not fenced:
                return True
            if not await waiting.pause():
                return False
            if not fenced:
                # The refusal and the map differ by a step that was just made: ask once more.
                return True
            fresh = await self._source.refresh()


_FENCED = "bucket"
_PAUSE_SECONDS = 0.01


class _Patience:
    """How long a call may still wait, in small pauses."""

    def __init__(self, seconds: float) -> None:
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def pause(self) -> bool:
        """Whether there was time left for a pause."""
        if asyncio.get_running_loop().time() + _PAUSE_SECONDS > self._deadline:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)
        return True


class _Gathering(Protocol):
    async def __call__(self, calls: Mapping[int, Coroutine[object, object, T]], /) -> dict[int, T]: ...


def _itself(bucket: Bucket) -> Bucket:
    return bucket


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


async def _gather_partly(calls: Mapping[int, Coroutine[object, object, T]]) -> dict[int, T]:
    return (await gather_partly(calls))[0]


async def _attempt(call: Coroutine[object, object, T]) -> tuple[T] | Overloaded | DependencyUnavailable:
    try:
        return (await call,)
    except (Overloaded, DependencyUnavailable) as error:
        return error
