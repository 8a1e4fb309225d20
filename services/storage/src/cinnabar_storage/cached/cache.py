"""Reading through two levels of cache: one in this process, one that all processes share.

What may change is never answered with when it is older than the maximum age,
counted from before it was read from Postgres: that bound needs no message, no
other process and no working Redis. Messages make it much shorter as a rule.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from cinnabar_common.clock import Clock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.cached.floors import Floors
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.lru import Entry, Lru
from cinnabar_storage.cached.shared import Hit, SharedCache, SharedCacheUnavailable
from cinnabar_storage.records import Lsn, Position
from cinnabar_storage.trail.budget import Budget

log = logging.getLogger(__name__)
A = TypeVar("A")

MAX_FLIGHTS = 10_000
"""Keys that are read at once through the cache; what comes on top is read past it."""
MAX_SINGLE_KEYS = 8
"""Of lasting things: so many are read one by one, each once for all who ask; more in one go."""
_ROUNDS = 3
_NOWHERE = Position(0, Lsn(0))


class Loaded(NamedTuple):
    """A value as read from a shard."""

    value: bytes
    position: Position
    """The value shows every write of this shard that was answered with this position or an earlier one."""


Load = Callable[[Lsn], Awaitable[Loaded | None]]
"""Reads what shows a position; None when there is nothing. May raise anything."""
LoadMany = Callable[[Sequence[CacheKey]], Awaitable[Mapping[CacheKey, bytes]]]
"""Reads things that never change, those that exist. May raise anything."""


@dataclass(slots=True, kw_only=True)
class Limits:
    """How much and how long."""

    max_age_seconds: float
    """Of what may change."""
    lasting_seconds: float
    """Of what never changes: only so that what nobody asks for leaves."""
    max_shared_value_bytes: int
    """Of one value in the shared cache."""
    max_shared_bytes: int
    """That this process puts there within each of the ages: what is there at most, twice and by process."""
    pause_seconds: float = 1.0
    """How long a shared cache that did not answer is left alone."""


class CacheStatistics:
    """Counts since the start, by kind of thing and level ("process", "shared")."""

    def __init__(self) -> None:
        self.hits: Counter[tuple[str, str]] = Counter()
        self.misses: Counter[tuple[str, str]] = Counter()
        self.loads: Counter[str] = Counter()
        """Reads of Postgres."""
        self.joins: Counter[str] = Counter()
        """Reads that shared another one's."""
        self.refused = 0
        """Values that were too old, or had been changed, when they were to be kept."""
        self.outages = 0
        """Times that the shared cache did not answer."""


_Put = Callable[[SharedCache], Awaitable[object]]
"""Done after those who wait have their answer."""


class _Landed(NamedTuple):
    """What a flight brought, and the monotonic time until which a read that begins may be given it."""

    loaded: Loaded | None
    until: float


@dataclass(slots=True, eq=False)
class _Flight:
    """One read of one key, for all who wait for it."""

    shard: int
    min_lsn: Lsn
    lasts: bool
    result: asyncio.Future[_Landed]
    begun: bool = False
    stale: bool = False
    """The key changed while it was under way."""


class Cache:
    """Use inside of ``async with cache.running()``. Without a shared cache only lasting things are kept."""

    def __init__(
        self,
        shared: SharedCache | None,
        *,
        changing: Lru,
        lasting: Lru,
        floors: Floors,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self.statistics = CacheStatistics()
        self.changing = changing
        self.lasting = lasting
        self._shared = shared
        self._floors = floors
        self._limits = limits
        self._clock = clock
        self._budgets = {
            lasts: Budget(max_bytes=limits.max_shared_bytes, seconds=seconds, clock=clock)
            for lasts, seconds in ((False, limits.max_age_seconds), (True, limits.lasting_seconds))
        }
        self._flights: dict[CacheKey, _Flight] = {}
        self._shared_from = 0.0
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Cache]:
        """Reads inside of the block; what is under way at its end fails with DependencyUnavailable."""
        async with self._group:
            sweeping = self._group.create_task(self._sweep(), name="cache-sweep")
            try:
                yield self
            finally:
                sweeping.cancel()
                for task in self._tasks:
                    task.cancel()

    async def _sweep(self) -> None:
        """What somebody had erased must not stay in memory until somebody else asks for it."""
        while True:
            await asyncio.sleep(self._limits.max_age_seconds)
            self.changing.sweep(self._clock.monotonic())

    # Reads

    async def get(self, kind: str, key: CacheKey, wanted: Position, load: Load) -> bytes | None:
        """Something that may change, as of ``wanted`` or later; None when there is nothing.

        Without a position it may be as old as the maximum age. ``wanted.shard``
        is where the key is now. Raises what ``load`` does.
        """
        entry = self.changing.get(key, self._clock.monotonic())
        if entry is not None and _shows(entry.position, wanted):
            self.statistics.hits[kind, "process"] += 1
            return entry.value
        self.statistics.misses[kind, "process"] += 1
        return await self._join(kind, key, wanted, load, lasts=False)

    async def get_lasting(
        self,
        kind: str,
        keys: Sequence[CacheKey],
        load: LoadMany,
    ) -> dict[CacheKey, bytes]:
        """Things that never change, those that exist. Raises what ``load`` does."""
        now = self._clock.monotonic()
        found: dict[CacheKey, bytes] = {}
        missing: list[CacheKey] = []
        for key in keys:
            entry = self.lasting.get(key, now)
            if entry is None:
                missing.append(key)
            else:
                found[key] = entry.value
        self.statistics.hits[kind, "process"] += len(found)
        self.statistics.misses[kind, "process"] += len(missing)
        if len(missing) > MAX_SINGLE_KEYS:
            return found | await self._load_lasting(kind, missing, load)

        def load_one(key: CacheKey) -> Load:
            async def one(_: Lsn) -> Loaded | None:
                value = (await load([key])).get(key)
                return None if value is None else Loaded(value, _NOWHERE)

            return one

        values = await asyncio.gather(
            *(self._join(kind, key, _NOWHERE, load_one(key), lasts=True) for key in missing)
        )
        found.update((key, value) for key, value in zip(missing, values, strict=True) if value is not None)
        return found

    async def _join(
        self, kind: str, key: CacheKey, wanted: Position, load: Load, *, lasts: bool
    ) -> bytes | None:
        """Waits for a read of the key that is good enough, which is its own if there is none."""
        arrived = self._clock.monotonic()
        for _ in range(_ROUNDS):
            flight = self._flights.get(key)
            if flight is None:
                if len(self._flights) >= MAX_FLIGHTS:
                    break
                result = asyncio.get_running_loop().create_future()
                flight = self._flights[key] = _Flight(wanted.shard, wanted.lsn, lasts, result)
                task = self._group.create_task(self._fly(kind, key, flight, load), name=f"read-{kind}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return _value(await asyncio.shield(flight.result))
            if flight.shard != wanted.shard:
                break
            if not flight.begun:
                self.statistics.joins[kind] += 1
                flight.min_lsn = max(flight.min_lsn, wanted.lsn)
                return _value(await asyncio.shield(flight.result))
            # It began before this read came: what it brings may be too old, as what is cached may be.
            usable = not flight.stale
            await asyncio.wait((flight.result,))
            if usable and flight.result.exception() is None:
                loaded, until = flight.result.result()
                if (
                    loaded is not None
                    and arrived < until
                    and _shows(loaded.position, wanted)
                    # It may have begun after a change and been answered by a replica that is behind it.
                    and self._floors.allows(key, loaded.position)
                ):
                    self.statistics.joins[kind] += 1
                    return loaded.value
        self.statistics.loads[kind] += 1
        loaded = await load(wanted.lsn)
        return None if loaded is None else loaded.value

    async def _fly(self, kind: str, key: CacheKey, flight: _Flight, load: Load) -> None:
        flight.begun = True
        put: _Put | None = None
        read = self._read_lasting if flight.lasts else self._read_changing
        try:
            landed, put = await read(kind, key, flight, load)
        except asyncio.CancelledError:
            flight.result.set_exception(DependencyUnavailable("storage"))
            raise
        except Exception as error:  # whoever waits gets it; the next one tries again
            flight.result.set_exception(error)
        else:
            flight.result.set_result(landed)
        finally:
            del self._flights[key]
            flight.result.exception()  # nobody may be waiting any more
        if put is not None:
            await self._ask(put)

    async def _read_changing(
        self, kind: str, key: CacheKey, flight: _Flight, load: Load
    ) -> tuple[_Landed, _Put | None]:
        lease_ms: int | None = None
        # A read for a position is of something just written: what is shared will hardly be new enough.
        if not flight.min_lsn:
            asked = self._clock.monotonic()
            answer = await self._ask(lambda shared: shared.get(key))
            if isinstance(answer, Hit):
                known = self._floors.allows(key, answer.position) and not flight.stale
                if known and answer.position.shard == flight.shard and answer.seconds > 0:
                    self.statistics.hits[kind, "shared"] += 1
                    entry = Entry(answer.value, answer.position, asked + answer.seconds)
                    self.changing.put(key, entry)
                    return _Landed(Loaded(entry.value, entry.position), entry.until), None
            elif answer is not None:
                lease_ms = answer.lease_ms
            if answer is not None:
                self.statistics.misses[kind, "shared"] += 1
        until = self._clock.monotonic() + self._limits.max_age_seconds
        self.statistics.loads[kind] += 1
        loaded = await load(flight.min_lsn)
        landed = _Landed(loaded, until)
        if loaded is None or self._shared is None:
            return landed, None
        if flight.stale or not self._floors.allows(key, loaded.position):
            self.statistics.refused += 1
            return landed, None
        self.changing.put(key, Entry(loaded.value, loaded.position, until))
        if lease_ms is None or not self._may_share(loaded.value, lasts=False):
            return landed, None
        lease = lease_ms
        return landed, lambda shared: shared.put(key, loaded.value, loaded.position, lease)

    async def _read_lasting(
        self, kind: str, key: CacheKey, flight: _Flight, load: Load
    ) -> tuple[_Landed, _Put | None]:
        until = self._clock.monotonic() + self._limits.lasting_seconds
        shared = await self._shared_lasting(kind, [key])
        if key in shared and not flight.stale:
            self.lasting.put(key, Entry(shared[key], _NOWHERE, until))
            return _Landed(Loaded(shared[key], _NOWHERE), until), None
        self.statistics.loads[kind] += 1
        loaded = await load(Lsn(0))
        if loaded is None or flight.stale:
            return _Landed(loaded, until), None
        self.lasting.put(key, Entry(loaded.value, _NOWHERE, until))
        return _Landed(loaded, until), self._putting({key: loaded.value})

    async def _load_lasting(
        self,
        kind: str,
        keys: Sequence[CacheKey],
        load: LoadMany,
    ) -> dict[CacheKey, bytes]:
        found = await self._shared_lasting(kind, keys)
        missing = [key for key in keys if key not in found]
        if missing:
            self.statistics.loads[kind] += 1
            fresh = await load(missing)
            found |= fresh
            put = self._putting(fresh)
            if put is not None:
                await self._ask(put)
        until = self._clock.monotonic() + self._limits.lasting_seconds
        for key, value in found.items():
            self.lasting.put(key, Entry(value, _NOWHERE, until))
        return found

    async def _shared_lasting(self, kind: str, keys: Sequence[CacheKey]) -> dict[CacheKey, bytes]:
        found = await self._ask(lambda shared: shared.get_lasting(keys))
        if found is None:
            return {}
        self.statistics.hits[kind, "shared"] += len(found)
        self.statistics.misses[kind, "shared"] += len(keys) - len(found)
        return found

    def _putting(self, values: Mapping[CacheKey, bytes]) -> _Put | None:
        small = {key: value for key, value in values.items() if self._may_share(value, lasts=True)}
        return (lambda shared: shared.put_lasting(small)) if small else None

    def _may_share(self, value: bytes, *, lasts: bool) -> bool:
        small = len(value) <= self._limits.max_shared_value_bytes
        return small and self._budgets[lasts].spend(len(value))

    async def _ask(self, question: Callable[[SharedCache], Awaitable[A]]) -> A | None:
        """None while the shared cache does not answer: it is asked again after a pause."""
        if self._shared is None or self._clock.monotonic() < self._shared_from:
            return None
        try:
            return await question(self._shared)
        except SharedCacheUnavailable as error:
            self.statistics.outages += 1
            self._shared_from = self._clock.monotonic() + self._limits.pause_seconds
            log.debug("shared cache does not answer", extra={"cause": str(error)})
            return None

    # Changes

    def changed(self, keys: Sequence[CacheKey], position: Position) -> None:
        """What is cached here of the keys is wrong, and what does not show the position will be."""
        self._floors.raise_to(keys, position)
        self.changing.drop(keys)
        self.lasting.drop(keys)
        if self._flights:
            for key in keys:
                flight = self._flights.get(key)
                if flight is not None:
                    flight.stale = True

    def forget(self) -> None:
        """Something may have changed that nobody told."""
        self.changing.clear()
        for flight in self._flights.values():
            flight.stale = True


def _shows(position: Position, wanted: Position) -> bool:
    return position.shard == wanted.shard and position.lsn >= wanted.lsn


def _value(landed: _Landed) -> bytes | None:
    return None if landed.loaded is None else landed.loaded.value
