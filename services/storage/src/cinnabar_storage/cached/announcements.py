"""Telling other processes what changed here, and hearing it from them.

Messages are numbered, and an idle process still sends its number: a listener
that missed one notices with the next, and forgets everything that may change.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cinnabar_common.clock import Clock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_storage.cached.cache import Cache
from cinnabar_storage.cached.invalidation import CacheKey
from cinnabar_storage.cached.shared import Message, SharedCache, SharedCacheUnavailable
from cinnabar_storage.records import Lsn, Position

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 0.25
MAX_KEYS = 2000
"""In one message: what the store does for it takes a few milliseconds, in which it does nothing else."""
MAX_WAITING = 100_000
"""Keys that wait to be sent. When more change, listeners are told that everything did."""
MAX_SENDERS = 1024
_RETRY_SECONDS = 0.05
_RECONNECT_SECONDS = 0.1
_SILENT_HEARTBEATS = 4


@dataclass(slots=True)
class AnnouncementStatistics:
    """Counts since the start."""

    keys_sent: int = 0
    keys_heard: int = 0
    """Of other processes."""
    messages_sent: int = 0
    messages_heard: int = 0
    keys_lost: int = 0
    """Given up: they had waited as long as anything may be cached, or too many waited."""
    gaps: int = 0
    """Messages of others that were missed, by number or because the connection was lost."""


class Announcements:
    """Implements Invalidations for a cache that others share; use inside of ``async with running()``."""

    def __init__(self, cache: Cache, shared: SharedCache, *, max_age_seconds: float, clock: Clock) -> None:
        self.statistics = AnnouncementStatistics()
        self._cache = cache
        self._shared = shared
        self._max_age = max_age_seconds
        self._clock = clock
        self._sender = secrets.token_hex(8)
        self._number = 0
        self._everything = False
        self._waiting: deque[tuple[float, list[CacheKey], Position]] = deque()
        self._waiting_keys = 0
        self._arrived = asyncio.Event()
        self._last_numbers: OrderedDict[str, int] = OrderedDict()
        self._heard_myself = float("-inf")

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Announcements]:
        """Sends and listens inside of the block."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._send(), name="announce"),
                group.create_task(self._listen(), name="listen"),
            ]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()

    @property
    def in_step(self) -> bool:
        """Whether what is sent here arrives here, and so what others send."""
        silent = self._clock.monotonic() - self._heard_myself
        return silent < _SILENT_HEARTBEATS * HEARTBEAT_SECONDS

    async def check(self) -> None:
        """Raises DependencyUnavailable when messages do not arrive."""
        if not self.in_step:
            raise DependencyUnavailable("redis")

    # Sending

    def changed(self, keys: Iterable[CacheKey], position: Position) -> None:
        """See Invalidations."""
        batch = list(keys)
        self._cache.changed(batch, position)
        now = self._clock.monotonic()
        for start in range(0, len(batch), MAX_KEYS):
            self._waiting.append((now, batch[start : start + MAX_KEYS], position))
        self._waiting_keys += len(batch)
        while self._waiting_keys > MAX_WAITING:
            self._give_up(self._waiting.popleft()[1])
        self._arrived.set()

    def _give_up(self, keys: list[CacheKey]) -> None:
        self._waiting_keys -= len(keys)
        self.statistics.keys_lost += len(keys)
        self._everything = True

    async def send_once(self) -> bool:
        """Sends what waits, a message per shard, or a heartbeat; False when the store does not answer."""
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0][0] <= now - self._max_age:
            # No cache can have anything that is older than the change any more.
            self._give_up(self._waiting.popleft()[1])
        keys: dict[int, list[CacheKey]] = {}
        latest: dict[int, Lsn] = {}
        taken: list[tuple[float, list[CacheKey], Position]] = []
        room = MAX_KEYS
        while self._waiting and len(self._waiting[0][1]) <= room:
            batch = self._waiting.popleft()
            taken.append(batch)
            room -= len(batch[1])
            shard, lsn = batch[2].shard, batch[2].lsn
            keys.setdefault(shard, []).extend(batch[1])
            latest[shard] = max(lsn, latest.get(shard, lsn))
        everything, self._everything = self._everything, False
        try:
            for shard, lsn in latest.items():
                await self._tell(Position(shard, lsn), tuple(keys[shard]), everything=everything)
            if not latest:
                await self._tell(Position(0, Lsn(0)), (), everything=everything)
        except SharedCacheUnavailable as error:
            log.debug("not announced", extra={"cause": str(error)})
            self._waiting.extendleft(reversed(taken))
            self._everything |= everything
            return False
        self._waiting_keys -= sum(len(batch[1]) for batch in taken)
        return True

    async def _tell(self, position: Position, keys: tuple[CacheKey, ...], *, everything: bool) -> None:
        # A number is used once, also when nobody knows whether it was sent.
        self._number += 1
        await self._shared.tell(Message(self._sender, self._number, position, keys, everything))
        self.statistics.messages_sent += 1
        self.statistics.keys_sent += len(keys)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not await self.send_once():
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._waiting:
                continue
            self._arrived.clear()
            heartbeat = loop.call_later(HEARTBEAT_SECONDS, self._arrived.set)
            try:
                await self._arrived.wait()
            finally:
                heartbeat.cancel()

    # Listening

    def hear(self, message: Message | None) -> None:
        """What the channel brings; None says that listening has begun, and what was said before is lost."""
        if message is None:
            self._last_numbers.clear()
            self._cache.forget()
            return
        if message.sender == self._sender:
            self._heard_myself = self._clock.monotonic()
            return
        self.statistics.messages_heard += 1
        self.statistics.keys_heard += len(message.keys)
        last = self._last_numbers.pop(message.sender, None)
        self._last_numbers[message.sender] = message.number
        if len(self._last_numbers) > MAX_SENDERS:
            self._last_numbers.popitem(last=False)
        if last is not None and message.number != last + 1:
            self.statistics.gaps += 1
            log.info("messages of another cache were missed", extra={"numbers": [last, message.number]})
            self._cache.forget()
        if message.everything:
            self._cache.forget()
        if message.keys:
            self._cache.changed(message.keys, message.position)

    async def _listen(self) -> None:
        connected = True
        while True:
            try:
                async for message in self._shared.messages():
                    connected = True
                    self.hear(message)
            except SharedCacheUnavailable as error:
                # Once per loss: an outage has ten tries a second.
                log.log(
                    logging.WARNING if connected else logging.DEBUG,
                    "subscription of the cache lost",
                    extra={"cause": str(error)},
                )
                if connected:
                    self.statistics.gaps += 1
                    self._cache.forget()
                connected = False
            await asyncio.sleep(_RECONNECT_SECONDS)
