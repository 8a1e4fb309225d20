"""Reading through the cache: levels, ages, positions, one read for all who ask at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

import pytest
import pytest_asyncio

from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.adapters.memory.cache import MemoryCache
from cinnabar_storage.cached.cache import Cache
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Hit, Message, Miss, SharedCacheUnavailable
from cinnabar_storage.records import Position
from tests.support.scheduler_queue import ManualClock
from tests.support.storage_cache import Source, at, cache_key, cache_of, ended, memory_cache, settled

KEY = cache_key("s")
ANY = at(0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shared(clock: ManualClock) -> MemoryCache:
    return memory_cache(clock)


@pytest_asyncio.fixture
async def cache(shared: MemoryCache, clock: ManualClock) -> AsyncGenerator[Cache]:
    async with cache_of(shared, clock).running() as running:
        yield running


@pytest_asyncio.fixture
async def other(shared: MemoryCache, clock: ManualClock) -> AsyncGenerator[Cache]:
    """The cache of another process."""
    async with cache_of(shared, clock).running() as running:
        yield running


async def read(cache: Cache, source: Source, wanted: Position = ANY) -> bytes | None:
    return await cache.get("thing", KEY, wanted, source.load)


async def test_it_is_read_once_and_then_known_to_all_processes(cache: Cache, other: Cache) -> None:
    source = Source()
    for _ in range(3):
        assert await read(cache, source) == b"one"
    await settled()
    for _ in range(3):
        assert await read(other, source) == b"one"
    assert source.loads == 1
    assert cache.statistics.hits == {("thing", "process"): 2}
    assert cache.statistics.misses == {("thing", "process"): 1, ("thing", "shared"): 1}
    assert other.statistics.hits == {("thing", "shared"): 1, ("thing", "process"): 2}


async def test_no_answer_is_older_than_the_maximum_age(
    cache: Cache, other: Cache, clock: ManualClock
) -> None:
    source = Source()
    await read(cache, source)
    await settled()
    source.value = b"two"
    clock.advance(0.9)
    assert await read(other, source) == b"one", "within the age, and nobody told"
    clock.advance(0.11)
    assert await read(cache, source) == b"two"
    await settled()
    assert await read(other, source) == b"two", "what came from elsewhere has the age that it had there"


async def test_age_counts_from_before_the_read(cache: Cache, clock: ManualClock) -> None:
    source = Source(gate=asyncio.Event())
    slow = asyncio.create_task(read(cache, source))
    await settled()
    clock.advance(0.8)
    assert source.gate is not None
    source.gate.set()
    assert await slow == b"one"
    source.value = b"two"
    clock.advance(0.21)
    assert await read(cache, source) == b"two"


async def test_a_read_with_a_position_gets_nothing_older(cache: Cache) -> None:
    source = Source(position=at(10))
    await read(cache, source)
    source.value, source.position = b"two", at(20)
    assert await read(cache, source, at(10)) == b"one"
    assert await read(cache, source, at(11)) == b"two"
    assert source.asked == [0, 11]
    assert await read(cache, source, at(20)) == b"two", "a read with a position fills the cache as well"
    assert source.loads == 2


async def test_an_entry_of_another_shard_does_not_count(cache: Cache, other: Cache) -> None:
    source = Source(position=at(10))
    await read(cache, source)
    await settled()
    source.value, source.position = b"moved", at(1, shard=1)
    for reader in (cache, other):
        assert await read(reader, source, at(0, shard=1)) == b"moved"


async def test_absence_is_not_remembered(cache: Cache) -> None:
    source = Source(value=None)
    assert await read(cache, source) is None
    source.value = b"one"
    assert await read(cache, source) == b"one"


async def test_a_thousand_reads_at_once_are_one(cache: Cache) -> None:
    source = Source()
    wanted = [at(number % 5) for number in range(1000)]
    answers = await asyncio.gather(*(read(cache, source, position) for position in wanted))
    assert set(answers) == {b"one"}
    assert source.asked == [4], "one read, for the latest position of all"
    assert cache.statistics.joins["thing"] == 999


async def test_a_read_under_way_is_shared_only_where_it_is_good_enough(
    cache: Cache, clock: ManualClock
) -> None:
    gate = asyncio.Event()
    source = Source(gate=gate)
    first = asyncio.create_task(read(cache, source))
    await settled()
    joined = asyncio.create_task(read(cache, source))
    shown = asyncio.create_task(read(cache, source, at(10)))
    newer = asyncio.create_task(read(cache, source, at(11)))
    await settled()
    clock.advance(1.01)
    late = asyncio.create_task(read(cache, source))
    await settled()
    assert source.loads == 1
    source.value, source.position = b"two", at(20)
    gate.set()
    assert await first == await joined == await shown == b"one"
    assert await newer == await late == b"two"
    assert source.loads == 2


async def test_what_is_not_found_by_a_read_under_way_is_looked_for_again(cache: Cache) -> None:
    source = Source(value=None, gate=asyncio.Event())
    first = asyncio.create_task(read(cache, source))
    await settled()
    source.value = b"created"
    second = asyncio.create_task(read(cache, source))
    await settled()
    assert source.gate is not None
    source.gate.set()
    assert await first is None
    assert await second == b"created"


async def test_errors_go_to_those_who_wait_and_are_forgotten(cache: Cache) -> None:
    source = Source(error=DependencyUnavailable("postgres"))
    answers = await asyncio.gather(*(read(cache, source) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DependencyUnavailable] * 5
    assert source.loads == 1
    source.error = None
    assert await read(cache, source) == b"one"


async def test_who_goes_away_takes_nobody_along(cache: Cache) -> None:
    gate = asyncio.Event()
    source = Source(gate=gate)
    first, second = (asyncio.create_task(read(cache, source)) for _ in range(2))
    await settled()
    first.cancel()
    await ended(first)
    gate.set()
    assert await second == b"one"
    assert source.loads == 1


async def test_the_end_of_the_cache_ends_reads(shared: MemoryCache, clock: ManualClock) -> None:
    async with cache_of(shared, clock).running() as cache:
        waiting = asyncio.create_task(read(cache, Source(gate=asyncio.Event())))
        await settled()
    with pytest.raises(DependencyUnavailable):
        await waiting


async def test_what_changed_is_read_again(cache: Cache) -> None:
    source = Source()
    await read(cache, source)
    source.value, source.position = b"two", at(12)
    cache.changed([KEY], at(12))
    assert await read(cache, source) == b"two"


async def test_a_replica_that_is_behind_a_change_does_not_bring_the_past_back(
    cache: Cache, clock: ManualClock
) -> None:
    source = Source(position=at(10))
    cache.changed([KEY], at(12))
    for _ in range(2):
        assert await read(cache, source) == b"one", "it is what a read without a cache finds"
    assert source.loads == 2
    assert cache.statistics.refused == 2
    source.value, source.position = b"two", at(12)
    assert await read(cache, source) == b"two"
    assert await read(cache, source) == b"two"
    assert source.loads == 3


async def test_a_change_during_a_read_keeps_what_it_finds_out(cache: Cache, other: Cache) -> None:
    gate = asyncio.Event()
    source = Source(gate=gate)
    first = asyncio.create_task(read(cache, source))
    await settled()
    source.value, source.position = b"two", at(12)
    cache.changed([KEY], at(12))
    after = asyncio.create_task(read(cache, source))
    await settled()
    gate.set()
    assert await first == b"one"
    assert await after == b"two", "it came after the change and waited for a read of its own"
    assert await read(other, source) == b"two"


async def test_all_is_forgotten_when_messages_were_missed(cache: Cache) -> None:
    source = Source()
    await read(cache, source)
    cache.forget()
    source.value = b"two"
    await settled()
    assert len(cache.changing) == 0


async def test_large_values_stay_in_the_process(cache: Cache, other: Cache) -> None:
    source = Source(value=b"x" * 1001)
    await read(cache, source)
    await settled()
    await read(other, source)
    assert source.loads == 2
    assert await read(cache, source) == source.value
    assert source.loads == 2


class Silent(MemoryCache):
    """A shared cache that does not answer."""

    asked = 0

    async def get(self, key: CacheKey) -> Hit | Miss:
        self.asked += 1
        raise SharedCacheUnavailable("silent")

    async def get_lasting(self, keys: Sequence[CacheKey]) -> dict[CacheKey, bytes]:
        self.asked += 1
        raise SharedCacheUnavailable("silent")

    async def tell(self, message: Message) -> None:
        raise SharedCacheUnavailable("silent")


async def test_a_silent_shared_cache_is_left_alone_for_a_while(clock: ManualClock) -> None:
    silent = Silent(max_age_seconds=1, lasting_seconds=1, clock=clock)
    async with cache_of(silent, clock).running() as cache:
        for number in range(5):
            source = Source()
            assert await cache.get("thing", cache_key(str(number)), ANY, source.load) == b"one"
        assert silent.asked == 1
        assert await read_lasting(cache, ["a"], {"a": b"1"}, []) == {"a": b"1"}
        assert silent.asked == 1
        clock.advance(1.0)
        assert await cache.get("thing", cache_key("another"), ANY, Source().load) == b"one"
        assert silent.asked == 2
        assert cache.statistics.outages == 2


async def test_without_a_shared_cache_nothing_that_changes_is_kept(clock: ManualClock) -> None:
    async with cache_of(None, clock).running() as cache:
        source = Source()
        assert await asyncio.gather(*(read(cache, source) for _ in range(10))) == [b"one"] * 10
        assert source.loads == 1
        await read(cache, source)
        assert source.loads == 2
        asked: list[str] = []
        for _ in range(2):
            await read_lasting(cache, ["a"], {"a": b"1"}, asked)
        assert asked == ["a"]


async def read_lasting(
    cache: Cache, keys: Sequence[str], there: Mapping[str, bytes], asked: list[str]
) -> dict[str, bytes]:
    async def load(missing: Sequence[CacheKey]) -> Mapping[CacheKey, bytes]:
        asked.extend(missing)
        return {key: there[key] for key in missing if key in there}

    found = await cache.get_lasting("revision", [cache_key(key) for key in keys], load)
    return {str(key): value for key, value in found.items()}


@pytest.mark.parametrize("count", [1, 3, 40])
async def test_what_never_changes_is_read_once(
    cache: Cache, other: Cache, clock: ManualClock, count: int
) -> None:
    there = {f"r{number}": b"%d" % number for number in range(count)}
    wanted = [*there, "unknown"]
    asked: list[str] = []
    for reader in (cache, cache, other, other):
        assert await read_lasting(reader, wanted, there, asked) == there
        await settled()
        clock.advance(500)
    assert sorted(asked) == sorted([*there, *["unknown"] * 4]), "only what is not there is asked for again"
    assert cache.statistics.hits["revision", "process"] == count
    assert other.statistics.hits["revision", "shared"] == count
    clock.advance(3600)
    asked.clear()
    assert await read_lasting(cache, wanted, there, asked) == there
    assert sorted(asked) == sorted(wanted)


async def test_many_reads_of_a_revision_at_once_are_one(cache: Cache) -> None:
    asked: list[str] = []
    answers = await asyncio.gather(
        *(read_lasting(cache, ["a", "b"], {"a": b"1", "b": b"2"}, asked) for _ in range(500))
    )
    assert all(answer == {"a": b"1", "b": b"2"} for answer in answers)
    assert sorted(asked) == ["a", "b"]


async def test_a_process_shares_no_more_than_its_budget(shared: MemoryCache, clock: ManualClock) -> None:
    keys = [cache_key(f"k{number}") for number in range(6)]

    async def shared_of(wanted: Sequence[CacheKey]) -> int:
        for key in wanted:
            await cache.get("thing", key, ANY, Source(value=b"x" * 30).load)
        await settled()
        return sum([isinstance(await shared.get(key), Hit) for key in wanted])

    async with cache_of(shared, clock, max_shared_bytes=100).running() as cache:
        assert await shared_of(keys[:4]) == 3
        assert await shared_of(keys[4:5]) == 0
        there = {f"r{number}": b"x" * 30 for number in range(6)}
        await read_lasting(cache, list(there), there, [])
        await settled()
        lasting = await shared.get_lasting([cache_key(key) for key in there])
        assert len(lasting) == 3, "what never changes has a budget of its own"
        clock.advance(1.0)
        assert await shared_of(keys[5:]) == 1
