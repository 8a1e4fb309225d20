"""The cache in a process is bounded in number, bytes and time, and forgets the least recently used first."""

from __future__ import annotations

from cinnabar_storage.cached.lru import Entry, Lru
from tests.support.storage_cache import at, cache_key


def put(cache: Lru, number: int, size: int = 1, *, until: float = 10.0) -> None:
    cache.put(cache_key(f"k{number}"), Entry(b"x" * size, at(1), until))


def held(cache: Lru, *numbers: int, now: float = 0.0) -> list[int]:
    return [number for number in numbers if cache.get(cache_key(f"k{number}"), now)]


def test_the_least_recently_used_goes_first() -> None:
    cache = Lru(max_entries=2, max_bytes=100)
    put(cache, 1)
    put(cache, 2)
    assert held(cache, 1) == [1]
    put(cache, 3)
    assert held(cache, 1, 2, 3) == [1, 3]
    assert cache.evictions == {"entries": 1}


def test_bytes_are_bounded_too() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    for number in range(5):
        put(cache, number, 40)
    assert held(cache, *range(5)) == [3, 4]
    put(cache, 9, 100)
    assert held(cache, 3, 4, 9) == [9]
    assert cache.bytes == 100
    assert cache.evictions == {"bytes": 5}


def test_what_is_larger_than_the_cache_is_not_kept_nor_what_it_replaces() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    put(cache, 1)
    put(cache, 2)
    put(cache, 2, 101)
    assert held(cache, 1, 2) == [1]
    assert cache.bytes == 1


def test_putting_it_again_replaces_it() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    for _ in range(5):
        put(cache, 1, 60)
    put(cache, 2, 40)
    assert held(cache, 1, 2) == [1, 2]
    assert (len(cache), cache.bytes) == (2, 100)


def test_entries_age() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    put(cache, 1, until=10.0)
    assert held(cache, 1, now=9.999) == [1]
    assert held(cache, 1, now=10.0) == []
    assert (len(cache), cache.bytes) == (0, 0)
    assert cache.evictions == {"age": 1}


def test_what_is_too_old_leaves_memory_unasked() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    for number in range(4):
        put(cache, number, until=10.0 + number % 2)
    cache.sweep(10.0)
    assert held(cache, *range(4), now=9.0) == [1, 3]
    assert cache.bytes == 2
    assert cache.evictions == {"age": 2}


def test_what_changed_goes() -> None:
    cache = Lru(max_entries=10, max_bytes=100)
    for number in range(4):
        put(cache, number)
    cache.drop([cache_key("k1"), cache_key("unknown"), cache_key("k1")])
    assert held(cache, *range(4)) == [0, 2, 3]
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
    assert cache.evictions == {"changed": 4}
