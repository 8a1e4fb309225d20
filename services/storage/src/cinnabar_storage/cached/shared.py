"""What the caches of all processes need of the store that they share, and of the channel between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.records import Position


class SharedCacheUnavailable(Exception):
    """The store does not answer; whether it did what was asked is not known."""


class Hit(NamedTuple):
    """What the store has of a key."""

    value: bytes
    position: Position
    """The value shows every write of this shard that was answered with this position or an earlier one."""
    seconds: float
    """How much longer, from when it was asked, it may be answered with."""


class Miss(NamedTuple):
    """The store has nothing."""

    lease_ms: int
    """By the store's own clock. What is read from now on may be put under it, until it is too old."""


class Message(NamedTuple):
    """What one process tells all others."""

    sender: str
    number: int
    """Rises by one from message to message of a sender: who misses one can tell."""
    position: Position
    keys: tuple[CacheKey, ...] = ()
    """What changed; nothing in a heartbeat."""
    everything: bool = False
    """More changed than is named: nothing from before may be used."""


class SharedCache(Protocol):
    """Every method raises SharedCacheUnavailable."""

    async def get(self, key: CacheKey) -> Hit | Miss:
        """What is there of something that may change."""
        ...

    async def put(self, key: CacheKey, value: bytes, position: Position, lease_ms: int) -> bool:
        """Keeps a value that was read under a lease, for the maximum age from the lease on.

        Refused, with False, when it is older than that already, and when what is
        there is newer and of the same shard. That it shows all changes of which
        others have told is for the readers to see to.
        """
        ...

    async def get_lasting(self, keys: Sequence[CacheKey]) -> dict[CacheKey, bytes]:
        """What is there of things that never change."""
        ...

    async def put_lasting(self, values: Mapping[CacheKey, bytes]) -> None:
        """Keeps what never changes."""
        ...

    async def tell(self, message: Message) -> None:
        """Drops what is there of the keys and sends the message, in one step."""
        ...

    def messages(self) -> AsyncIterator[Message | None]:
        """All messages from now on, one's own as well, in the order of each sender.

        The first item is None and says that listening works. Ends with
        SharedCacheUnavailable when the connection is lost.
        """
        ...
