"""Watching submissions: one read and one subscription, however many watch.

A change is announced by a scheduler without saying what it is; the hub reads the
submission again. Announcements may be lost, so what is watched is read again now
and then in any case. Each watcher holds no more than the newest state: a slow
one skips states and slows nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from cinnabar_common.clock import Clock
from cinnabar_common.errors import DependencyUnavailable, Overloaded, SuiteError
from cinnabar_gateway.consistency import Positions, covers, merged
from cinnabar_gateway.ports import ChangeSource, Following, SubmissionStore
from cinnabar_gateway.progress import Progress
from cinnabar_gateway.records import Submission, SubmissionKey
from cinnabar_gateway.submissions import is_final

log = logging.getLogger(__name__)

WATCH_QUEUE = "gateway.watches"
_FIRST_REREAD_SECONDS = 0.1
_RECONNECT_SECONDS = (0.1, 2.0)  # first and longest pause


@dataclass(slots=True, eq=False)
class _Topic:
    """A submission that somebody watches."""

    key: SubmissionKey
    watchers: int = 0
    positions: Positions = ()
    shown: Positions = ()
    submission: Submission | None = None
    known: bool = False
    error: SuiteError | None = None
    version: int = 0
    reading: bool = False
    reread_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self) -> None:
        """Something new: every watcher has something to send."""
        self.version += 1
        self.wake()

    def wake(self) -> None:
        """Every watcher looks again."""
        self.changed.set()
        self.changed = asyncio.Event()


class WatchHub:
    """Shares reads and subscriptions among watchers; use inside ``async with hub.running()``."""

    def __init__(
        self,
        store: SubmissionStore,
        sources: Sequence[ChangeSource],
        progress: Progress,
        clock: Clock,
        *,
        reread_seconds: float = 2.0,
        max_watches: int = 10_000,
        max_batch: int = 500,
        lanes: int = 2,
    ) -> None:
        """``reread_seconds`` bounds how late a lost announcement is noticed."""
        self._store = store
        self._sources = sources
        self._progress = progress
        self._clock = clock
        self._reread = reread_seconds
        self._max_watches = max_watches
        self._max_batch = max_batch
        self._lanes = lanes
        self._topics: dict[SubmissionKey, _Topic] = {}
        self._by_id: dict[str, set[_Topic]] = {}
        self._watches = 0
        self._followings: set[Following] = set()
        self._dirty: dict[_Topic, None] = {}
        self._arrived = asyncio.Event()
        self._draining = False

    @property
    def watches(self) -> int:
        """Watchers there are."""
        return self._watches

    @property
    def following(self) -> int:
        """Sources that announce changes now."""
        return len(self._followings)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[WatchHub]:
        """Follows the sources and reads what changes."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._lane(), name=f"watch-reads-{lane}") for lane in range(self._lanes)
            ]
            tasks.append(group.create_task(self._timer(), name="watch-rereads"))
            tasks += [
                group.create_task(self._follow(source), name=f"watch-follow-{number}")
                for number, source in enumerate(self._sources)
            ]
            try:
                yield self
            finally:
                self.drain()
                for task in tasks:
                    task.cancel()

    def drain(self) -> None:
        """Ends all watches with DependencyUnavailable, so that they go elsewhere at once."""
        self._draining = True
        for topic in self._topics.values():
            topic.wake()

    async def watch(self, key: SubmissionKey, min_positions: Positions) -> AsyncGenerator[Submission | None]:
        """The submission now and whenever it changes, ending with its final state; None when there is none.

        Overloaded when there are too many watches; DependencyUnavailable when it
        cannot be read or this process stops. Close the iterator to stop watching.
        """
        if self._watches >= self._max_watches:
            raise Overloaded(WATCH_QUEUE)
        topic = self._enter(key, min_positions)
        try:
            seen = -1 if topic.known else topic.version
            while True:
                while not self._draining and (
                    topic.version == seen or (topic.known and not covers(topic.shown, min_positions))
                ):
                    await topic.changed.wait()
                if self._draining:
                    raise DependencyUnavailable("gateway")
                seen = topic.version
                if topic.error is not None:
                    raise topic.error
                submission = topic.submission
                yield submission
                if submission is None or is_final(submission):
                    return
        finally:
            self._leave(topic)

    def _enter(self, key: SubmissionKey, min_positions: Positions) -> _Topic:
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = _Topic(key)
            topics = self._by_id.setdefault(key.submission_id, set())
            topics.add(topic)
            # Follow first, then read: a change in between is announced. The announcement
            # may still be lost while the subscription travels, so the first re-read is early.
            if len(topics) == 1:
                for following in self._followings:
                    following.add((key.submission_id,))
            topic.reread_at = self._clock.monotonic() + min(_FIRST_REREAD_SECONDS, self._reread)
        topic.watchers += 1
        self._watches += 1
        if min_positions or not topic.known:
            self._mark(topic, min_positions)
        return topic

    def _leave(self, topic: _Topic) -> None:
        self._watches -= 1
        topic.watchers -= 1
        if topic.watchers:
            return
        del self._topics[topic.key]
        self._dirty.pop(topic, None)
        topics = self._by_id[topic.key.submission_id]
        topics.discard(topic)
        if not topics:
            del self._by_id[topic.key.submission_id]
            for following in self._followings:
                following.remove((topic.key.submission_id,))

    def _mark(self, topic: _Topic, positions: Positions) -> None:
        if positions:
            topic.positions = merged(topic.positions, positions)
        self._dirty[topic] = None
        self._arrived.set()

    async def _lane(self) -> None:
        while True:
            if not await self.read_once():
                self._arrived.clear()
                await self._arrived.wait()

    async def read_once(self) -> int:
        """Reads one batch of what may have changed; returns its size."""
        batch = [topic for topic in self._dirty if not topic.reading][: self._max_batch]
        if not batch:
            return 0
        for topic in batch:
            del self._dirty[topic]
            topic.reading = True
        asked = [topic.positions for topic in batch]
        try:
            read = await self._store.get_submissions([topic.key for topic in batch], merged(*asked))
            found = await self._progress.filled(read)
        except SuiteError as error:
            log.warning("watched submissions not read", extra={"count": len(batch), "error": error.message})
            for topic in batch:
                if not topic.known:  # its watchers have nothing to wait with
                    topic.error = error
                    topic.publish()
            return len(batch)
        finally:
            for topic in batch:
                topic.reading = False
            if any(topic in self._dirty for topic in batch):
                self._arrived.set()
        by_key = {SubmissionKey(one.tenant, one.submission_id): one for one in found}
        for topic, positions in zip(batch, asked, strict=True):
            self._update(topic, by_key.get(topic.key), positions)
        return len(batch)

    def _update(self, topic: _Topic, found: Submission | None, positions: Positions) -> None:
        topic.error = None
        topic.shown = merged(topic.shown, positions)
        topic.wake()
        if topic.known:
            shown = topic.submission
            # A replica that lags shows the past; nobody is ever taken back to it.
            if found is None or found == shown:
                return
            if shown is not None and found.update_time_us < shown.update_time_us:
                return
        topic.known = found is not None
        topic.submission = found
        topic.publish()

    async def _timer(self) -> None:
        while True:
            await asyncio.sleep(min(_FIRST_REREAD_SECONDS, self._reread) / 2)
            self.reread_once()

    def reread_once(self) -> int:
        """Marks what was not read for long; returns how many."""
        now = self._clock.monotonic()
        due = [topic for topic in self._topics.values() if topic.reread_at <= now]
        for topic in due:
            topic.reread_at = now + self._reread
            self._mark(topic, ())
        return len(due)

    async def _follow(self, source: ChangeSource) -> None:
        pause, longest = _RECONNECT_SECONDS
        while True:
            try:
                async with AsyncExitStack() as exits:
                    following = await exits.enter_async_context(source.follow())
                    self._followings.add(following)
                    exits.callback(self._followings.discard, following)
                    following.add(tuple(self._by_id))
                    async for change in following.changes():
                        pause = _RECONNECT_SECONDS[0]
                        if not change.submission_ids:
                            log.info("following")
                            self._mark_all()
                        for submission_id in change.submission_ids:
                            for topic in self._by_id.get(submission_id, ()):
                                self._mark(topic, change.positions)
            except SuiteError as error:
                log.warning("following stopped", extra={"error": error.message, "pause_seconds": pause})
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _mark_all(self) -> None:
        """What changed while nobody announced it is read now."""
        for topic in self._topics.values():
            self._mark(topic, ())
