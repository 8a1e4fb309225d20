"""Changes are remembered for as long as a replica may be behind, in bounded memory."""

from __future__ import annotations

from cinnabar_storage.cached.floors import Floors
from tests.support.scheduler_queue import ManualClock
from tests.support.storage_cache import at, cache_key

A, B = cache_key("a"), cache_key("b")


def test_what_does_not_show_a_change_is_refused_for_a_while() -> None:
    clock = ManualClock()
    floors = Floors(seconds=9, max_keys=100, clock=clock)
    assert floors.allows(A, at(1))
    clock.advance(8.9)
    floors.raise_to([A], at(10))
    for _ in range(9):
        assert not floors.allows(A, at(9))
        assert floors.allows(A, at(10))
        assert floors.allows(B, at(1))
        clock.advance(0.999)
    clock.advance(18)
    assert floors.allows(A, at(9))
    assert len(floors) == 0


def test_a_floor_never_falls_and_another_shard_does_not_show_it() -> None:
    floors = Floors(seconds=9, max_keys=100, clock=ManualClock())
    floors.raise_to([A], at(10))
    floors.raise_to([A], at(8))
    assert not floors.allows(A, at(9))
    assert not floors.allows(A, at(99, shard=1))
    floors.raise_to([A], at(3, shard=1))
    assert floors.allows(A, at(3, shard=1))
    assert not floors.allows(A, at(99))


def test_more_changes_than_it_can_remember_are_remembered_together() -> None:
    clock = ManualClock()
    floors = Floors(seconds=9, max_keys=10, clock=clock)
    for number in range(100):
        floors.raise_to([cache_key(f"k{number}")], at(number))
        assert len(floors) <= 12
    for number in range(100):
        assert not floors.allows(cache_key(f"k{number}"), at(number - 1))
    assert floors.allows(cache_key("k99"), at(99))
    assert floors.allows(A, at(0, shard=1))
    clock.advance(20)
    assert floors.allows(A, at(0))
