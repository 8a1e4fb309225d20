"""Objects in memory, with forms that `put` fills in as a server of S3 would take them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.files.records import FileFacts, Form, StoredObject
from cinnabar_storage.records import Micros


@dataclass(slots=True)
class MemoryObjects:
    """Implements upload_ports.Objects; ``outage`` makes all of it raise. It believes any checksum."""

    clock: Clock = field(default_factory=SystemClock)
    outage: bool = False
    objects: dict[str, tuple[bytes, str, Micros]] = field(
        default_factory=dict[str, tuple[bytes, str, Micros]]
    )

    def put(self, key: str, content: bytes, content_type: str = "text/plain") -> None:
        """Somebody sends the form of this key."""
        self.objects[key] = (content, content_type, Micros(int(self.clock.time() * 1_000_000)))

    def form(self, key: str, facts: FileFacts, *, seconds: int, internal: bool) -> Form:
        return Form("memory:", (("key", key), ("Content-Type", facts.content_type)))

    def link(self, key: str, *, seconds: int, internal: bool) -> str:
        return f"memory:{'internal' if internal else 'public'}/{key}"

    def _reach(self) -> None:
        if self.outage:
            raise DependencyUnavailable("objects")

    async def prepare(self) -> None:
        self._reach()

    async def stat(self, key: str) -> tuple[int, str] | None:
        self._reach()
        found = self.objects.get(key)
        return None if found is None else (len(found[0]), found[1])

    async def copy(self, source: str, target: str) -> bool:
        self._reach()
        if source not in self.objects:
            return False
        self.put(target, *self.objects[source][:2])
        return True

    async def facts(self, key: str, *, max_bytes: int) -> FileFacts | None:
        self._reach()
        found = self.objects.get(key)
        if found is None or len(found[0]) > max_bytes:
            return None
        return FileFacts(found[1], len(found[0]), hashlib.sha256(found[0]).digest())

    async def delete(self, keys: Sequence[str]) -> None:
        self._reach()
        for key in keys:
            self.objects.pop(key, None)

    async def listed(self, prefix: str, after: str, limit: int) -> list[StoredObject]:
        self._reach()
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return [StoredObject(key, self.objects[key][2]) for key in keys[:limit]]
