"""Which replica may serve a read."""

from __future__ import annotations

from dataclasses import dataclass

from cinnabar_storage.records import Lsn
from cinnabar_storage.shards.replicas import Rotation

ANY = Lsn(0)


@dataclass(slots=True)
class ManualClock:
    now: float = 100.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def rotation(replicas: int, clock: ManualClock | None = None) -> Rotation:
    return Rotation(replicas, max_lag_seconds=5.0, clock=clock or ManualClock())


def test_without_replicas_there_is_nobody_to_choose() -> None:
    assert rotation(0).choose(ANY) is None


def test_a_replica_that_was_never_seen_is_not_chosen() -> None:
    assert rotation(1).choose(ANY) is None


def test_replicas_take_turns() -> None:
    three = rotation(3)
    for index in range(3):
        three.saw_replica(index, Lsn(10))
    assert [three.choose(ANY) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_position_is_served_by_who_has_reached_it() -> None:
    two = rotation(2)
    two.saw_replica(0, Lsn(10))
    two.saw_replica(1, Lsn(20))
    assert [two.choose(Lsn(15)) for _ in range(2)] == [1, 1]
    assert two.choose(Lsn(20)) == 1
    assert two.choose(Lsn(21)) is None


def test_a_lost_replica_is_out_until_it_is_seen_again() -> None:
    two = rotation(2)
    two.saw_replica(0, Lsn(10))
    two.saw_replica(1, Lsn(10))
    two.lost(0)
    assert two.fit() == [1]
    assert [two.choose(ANY) for _ in range(2)] == [1, 1]
    two.saw_replica(0, Lsn(11))
    assert two.fit() == [0, 1]


def test_a_replica_is_out_when_it_is_behind_for_too_long() -> None:
    clock = ManualClock()
    one = rotation(1, clock)
    one.saw_replica(0, Lsn(10))
    one.saw_primary(Lsn(20))
    assert one.choose(ANY) == 0
    clock.now += 4.9
    one.saw_primary(Lsn(30))
    assert one.choose(ANY) == 0
    clock.now += 0.1
    one.saw_primary(Lsn(40))
    assert one.choose(ANY) is None
    one.saw_replica(0, Lsn(20))
    assert one.choose(ANY) == 0


def test_a_replica_tells_how_far_it_is_behind() -> None:
    clock = ManualClock()
    two = rotation(2, clock)
    assert two.states() == [(False, None, None), (False, None, None)]
    two.saw_primary(Lsn(100))
    two.saw_replica(0, Lsn(100))
    two.saw_replica(1, Lsn(90))
    assert two.states() == [(True, 0, 0.0), (True, 10, 0.0)]
    for step in range(1, 9):
        clock.now += 1
        two.saw_primary(Lsn(100 + step))
        two.saw_replica(0, Lsn(100 + step - 1))
        two.saw_replica(1, Lsn(90))
    assert two.states() == [(True, 1, 1.0), (False, 18, 8.0)]
    two.saw_replica(1, Lsn(106))
    assert two.states()[1] == (True, 2, 2.0)
    two.saw_replica(1, Lsn(110))
    assert two.states()[1] == (True, 0, 0.0)
    two.lost(0)
    assert two.states()[0] == (False, None, None)


def test_replicas_serve_on_when_the_primary_is_silent() -> None:
    clock = ManualClock()
    one = rotation(1, clock)
    one.saw_primary(Lsn(20))
    one.saw_replica(0, Lsn(10))
    clock.now += 3600
    assert one.choose(ANY) == 0
