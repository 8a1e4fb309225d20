"""What lanes have in common that work on several things at once: places, and what is under way there."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from typing import Generic, Protocol, TypeVar

from cinnabar_grader.answer_files import Author
from cinnabar_grader.graders import LeaseToken, Outcome, Task
from cinnabar_grader.pipeline import Desk
from cinnabar_grader.transfers import Transfers

P = TypeVar("P")


class Places(Protocol[P]):
    """Places to work at, which may be shared with other lanes, of this stream and of others."""

    async def acquire(self) -> P:
        """Waits for a place; whoever has it says `release` once."""
        ...

    def release(self, place: P, /) -> None:
        """Gives it back."""
        ...


class ParallelLane(ABC, Generic[P]):
    """Works on the tasks of one queue of one stream, a batch at each place. Implements `QueueLane`.

    A place is taken only for tasks that are there.
    """

    def __init__(self, author: Author, queue: str, desk: Desk, places: Places[P], limit: int) -> None:
        """``limit``: most tasks of a batch."""
        self.queue = queue
        self._desk = desk
        self._places = places
        self._limit = limit
        self._arrived = asyncio.Event()
        self._batches: deque[Sequence[Task]] = deque()
        self._running: dict[LeaseToken, asyncio.Task[None]] = {}
        self._transfers = Transfers(author, desk.files, finished=self._finish, arrived=self.wake)

    def wake(self) -> None:
        """See QueueLane."""
        self._arrived.set()

    @abstractmethod
    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """See QueueLane."""

    @abstractmethod
    async def _work(self, place: P, batch: Sequence[Task]) -> Sequence[Outcome]:
        """Outcomes of a batch; must not raise but when it is cancelled."""

    async def run(self) -> None:
        """See QueueLane."""
        async with self._transfers, asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                place = await self._places.acquire()
                batch = self._next()
                if not batch:
                    self._places.release(place)
                    continue
                running = group.create_task(self._run(place, batch), name=f"batch-{self.queue}")
                self._running.update((task.token, running) for task in batch)
                # Not at the end of the coroutine: one that is cancelled early never begins.
                running.add_done_callback(lambda _, place=place, batch=batch: self._done(place, batch))

    def _next(self) -> Sequence[Task]:
        """A batch that can be graded now; empty, and no more `_arrived`, when there is none.

        Tasks that were delivered before are graded alone: one that ended its grader would end it again.
        """
        fetched = self._transfers.next()
        if fetched is not None:
            return (fetched,)
        while not self._batches:
            started = self._desk.work.start(self.queue, self._limit)
            if not started:
                self._arrived.clear()
                return ()
            ready = self._transfers.without_files(started)
            if together := [task for task in ready if task.attempt <= 1]:
                self._batches.append(together)
            self._batches.extend((task,) for task in ready if task.attempt > 1)
        return self._batches.popleft()

    def _done(self, place: P, batch: Sequence[Task]) -> None:
        for task in batch:
            del self._running[task.token]
            self._transfers.settle(task)
        self._places.release(place)

    async def _run(self, place: P, batch: Sequence[Task]) -> None:
        wanted = [task for task in batch if not task.cancelled]
        if wanted:
            self._transfers.finish(await self._work(place, wanted))

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._desk.work.finished(outcomes)
        self._desk.reported()
