"""Changes that were told lately: what does not show them must not be kept any more."""

from __future__ import annotations

from collections.abc import Iterable

from cinnabar_common.clock import Clock
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.records import Lsn, Position


class Floors:
    """Remembers each change for at least ``seconds``: longer than a replica that is read from is behind.

    Two halves that take turns, so that nothing is looked through to forget. When
    more than ``max_keys`` change in that time, the older half becomes one
    position per shard that everything has to show.
    """

    def __init__(self, *, seconds: float, max_keys: int, clock: Clock) -> None:
        self._seconds = seconds
        self._half = max_keys // 2
        self._clock = clock
        self._new: dict[CacheKey, Position] = {}
        self._old: dict[CacheKey, Position] = {}
        self._turned = clock.monotonic()
        self._all: dict[int, Lsn] = {}
        self._all_until = 0.0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def raise_to(self, keys: Iterable[CacheKey], position: Position) -> None:
        """The keys changed, and what shows ``position`` shows it. Never lowers a floor of the same shard."""
        self._turn()
        new, old = self._new, self._old
        shard, lsn = position.shard, position.lsn
        for key in keys:
            floor = new.get(key) or old.get(key)
            if floor is None or floor[0] != shard or floor[1] < lsn:
                new[key] = position

    def allows(self, key: CacheKey, position: Position) -> bool:
        """Whether what was read at ``position`` shows all changes of the key that were told lately."""
        self._turn()
        if self._all and position.lsn < self._all.get(position.shard, 0):
            return False
        floor = self._new.get(key) or self._old.get(key)
        return floor is None or (floor.shard == position.shard and floor.lsn <= position.lsn)

    def _turn(self) -> None:
        now = self._clock.monotonic()
        if self._all and now >= self._all_until:
            self._all = {}
        early = len(self._new) > self._half
        if not early and now - self._turned < self._seconds:
            return
        if early:
            for floor in self._old.values():
                self._all[floor.shard] = max(floor.lsn, self._all.get(floor.shard, floor.lsn))
            self._all_until = now + self._seconds
        self._old = self._new if early or now - self._turned < 2 * self._seconds else {}
        self._new = {}
        self._turned = now
