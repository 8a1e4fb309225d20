"""The cache inside of a process: bounded in number, bytes and time; the least recently used goes first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.records import Position


class Entry(NamedTuple):
    """A value, what it shows, and the monotonic time until which it may be answered with."""

    value: bytes
    position: Position
    until: float


class Lru:
    """Entries used lately. Times are given by the caller, in seconds of a monotonic clock."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[CacheKey, Entry] = OrderedDict()
        self.bytes = 0
        """Of all values together; keys are a small constant more each."""
        self.evictions: Counter[str] = Counter()
        """By reason: "entries" and "bytes" are the bounds, "age", "changed"."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: CacheKey, now: float) -> Entry | None:
        """The entry, if it is here and not too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            self._drop(key, "age")
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: CacheKey, entry: Entry) -> None:
        """Keeps an entry instead of the one before, unless it is larger than the whole cache."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= len(before.value)
        if len(entry.value) > self._max_bytes:
            return
        self._entries[key] = entry
        self.bytes += len(entry.value)
        while len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)), "entries")
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)), "bytes")

    def drop(self, keys: Iterable[CacheKey]) -> None:
        """They changed."""
        entries = self._entries
        for key in keys:
            if key in entries:
                self._drop(key, "changed")

    def sweep(self, now: float) -> None:
        """Lets go of what is too old, which nobody may ask for again."""
        for key in [key for key, entry in self._entries.items() if now >= entry.until]:
            self._drop(key, "age")

    def clear(self) -> None:
        """Everything may have changed."""
        self.evictions["changed"] += len(self._entries)
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: CacheKey, reason: str) -> None:
        self.bytes -= len(self._entries.pop(key).value)
        self.evictions[reason] += 1
