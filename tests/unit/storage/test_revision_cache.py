"""The cache of revisions is bounded, and forgets the least recently used first."""

from __future__ import annotations

from cinnabar_storage.assignments import RevisionCache
from cinnabar_storage.records import Assignment, Micros, RevisionKey


def revision(number: int, size: int = 1) -> Assignment:
    return Assignment("t", "net", "hw", f"r{number}", b"x" * size, Micros(1), Micros(1))


def held(cache: RevisionCache, *numbers: int) -> list[int]:
    return [number for number in numbers if cache.get(RevisionKey("t", f"r{number}"))]


def test_the_least_recently_used_goes_first() -> None:
    cache = RevisionCache(max_entries=2, max_bytes=100)
    cache.put(revision(1))
    cache.put(revision(2))
    assert held(cache, 1) == [1]
    cache.put(revision(3))
    assert held(cache, 1, 2, 3) == [1, 3]


def test_bytes_are_bounded_too() -> None:
    cache = RevisionCache(max_entries=10, max_bytes=100)
    for number in range(5):
        cache.put(revision(number, 40))
    assert held(cache, *range(5)) == [3, 4]
    cache.put(revision(9, 100))
    assert held(cache, 3, 4, 9) == [9]


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = RevisionCache(max_entries=10, max_bytes=100)
    cache.put(revision(1))
    cache.put(revision(2, 101))
    assert held(cache, 1, 2) == [1]


def test_putting_it_again_counts_it_once() -> None:
    cache = RevisionCache(max_entries=10, max_bytes=100)
    for _ in range(5):
        cache.put(revision(1, 60))
    cache.put(revision(2, 40))
    assert held(cache, 1, 2) == [1, 2]
    assert len(cache) == 2


def test_a_revision_is_its_tenants_own() -> None:
    cache = RevisionCache(max_entries=10, max_bytes=100)
    cache.put(revision(1))
    assert cache.get(RevisionKey("other", "r1")) is None
