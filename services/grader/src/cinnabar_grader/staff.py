"""The workers of a kind: how many there are, after what the schedulers say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cinnabar_grader.pipeline import LaneOf
from cinnabar_grader.pool import Backlog, Pool, PoolTerms, together

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0


class Stream(Protocol):
    """Where tasks come from; `SchedulerStream` is one."""

    @property
    def loads(self) -> Mapping[str, Backlog]:
        """What waits, by queue, as far as it is known."""
        ...

    def held_of(self, queue: str) -> int:
        """Tasks of a queue that are under lease here."""
        ...

    def serve(self, queue: str, lane_of: LaneOf) -> None:
        """The grader of a queue is ready: ask for its tasks."""
        ...

    def want(self, queue: str, credits: int) -> None:
        """Take so many tasks of a queue ahead."""
        ...


class Workers(Protocol):
    """Workers whose number can be changed while they work: `Slots`, `ProcessPool`."""

    @property
    def size(self) -> int:
        """How many there should be."""
        ...

    @property
    def busy(self) -> int:
        """How many work."""
        ...

    def resize(self, size: int) -> None:
        """From now on so many; none is taken away from its work."""
        ...


class Staff:
    """The workers of one kind, and the decision on their number."""

    def __init__(
        self,
        kind: str,
        workers: Workers,
        terms: PoolTerms,
        credits: Callable[[str, int], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``credits``: tasks of a queue that so many workers take ahead."""
        self.workers = workers
        self.queues: set[str] = set()
        """Those that they serve; may grow."""
        self._kind = kind
        self._credits = credits
        self._clock = clock
        self._pool = Pool(terms, clock())

    async def run(self, streams: Sequence[Stream]) -> None:
        """Looks and decides, for ever."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.run_once(streams)

    def run_once(self, streams: Sequence[Stream]) -> None:
        """Looks once, and decides when it is time."""
        now = self._clock()
        known = {queue: backlog for stream in streams for queue, backlog in stream.loads.items()}
        self._pool.observe(
            now,
            busy=self.workers.busy,
            held=sum(stream.held_of(queue) for queue in self.queues for stream in streams),
            backlog=together(known[queue] for queue in self.queues if queue in known),
        )
        before = self._pool.size
        size = self._pool.decide(now)
        if size != before:
            log.info("pool resized", extra={"kind": self._kind, "workers": size, "before": before})
            self.workers.resize(size)
            self.want(streams)

    def want(self, streams: Sequence[Stream]) -> None:
        """Tells streams how much to take ahead."""
        for stream in streams:
            for queue in self.queues:
                stream.want(queue, self._credits(queue, self._pool.size))
