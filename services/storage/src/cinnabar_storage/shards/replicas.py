"""Which replica may serve a read. No I/O: it is told what was seen and answers who is fit."""

from __future__ import annotations

from collections import deque

from cinnabar_common.clock import Clock
from cinnabar_storage.records import Lsn, ReplicaState


class Rotation:
    """The replicas of one shard, taken in turn.

    A replica is out until it was seen, and again when it was lost or is behind
    where the primary was ``max_lag_seconds`` ago. When the primary is silent
    nobody falls further behind: replicas keep serving while it is down.
    """

    def __init__(self, replicas: int, *, max_lag_seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._max_lag = max_lag_seconds
        self._replayed: list[Lsn | None] = [None] * replicas
        # When the primary was where the replica is, or before: kept while it stands still.
        self._was_there = [clock.monotonic()] * replicas
        self._primary: deque[tuple[float, Lsn]] = deque()
        self._floor = Lsn(0)
        self._seen = Lsn(0)
        self._next = 0

    def saw_primary(self, lsn: Lsn) -> None:
        """The primary's log had come so far just now."""
        now = self._clock.monotonic()
        self._seen = lsn
        self._primary.append((now, lsn))
        while self._primary and self._primary[0][0] <= now - self._max_lag:
            self._floor = self._primary.popleft()[1]

    @property
    def primary_shows(self) -> Lsn:
        """A position such that every write answered with it or an earlier one can be read from the primary.

        Just below where its log was seen: a write whose commit is in the log by
        then becomes visible, and is answered, a moment later and possibly with
        that very position.
        """
        return Lsn(max(0, self._seen - 1))

    def replica_shows(self, index: int) -> Lsn:
        """As far as the replica is known to have replayed; 0 when it is lost."""
        return self._replayed[index] or Lsn(0)

    def saw_replica(self, index: int, lsn: Lsn) -> None:
        """The replica had replayed so far just now."""
        self._replayed[index] = lsn
        for time, position in reversed(self._primary):
            if position <= lsn:
                self._was_there[index] = time
                break

    def lost(self, index: int) -> None:
        """The replica failed; it is back when it is seen again."""
        self._replayed[index] = None

    def fit(self) -> list[int]:
        """The replicas in the rotation."""
        return [index for index, lsn in enumerate(self._replayed) if lsn is not None and lsn >= self._floor]

    def states(self) -> list[ReplicaState]:
        """How each replica is, by what was seen last."""
        now, fit = self._clock.monotonic(), set(self.fit())
        return [
            ReplicaState(
                index in fit,
                None if lsn is None else max(0, self._seen - lsn),
                None if lsn is None else now - self._was_there[index] if lsn < self._seen else 0.0,
            )
            for index, lsn in enumerate(self._replayed)
        ]

    def choose(self, min_lsn: Lsn) -> int | None:
        """The next replica that is fit and known to have replayed ``min_lsn``; None when there is none."""
        needed = max(min_lsn, self._floor)
        for step in range(len(self._replayed)):
            index = (self._next + step) % len(self._replayed)
            lsn = self._replayed[index]
            if lsn is not None and lsn >= needed:
                self._next = index + 1
                return index
        return None
