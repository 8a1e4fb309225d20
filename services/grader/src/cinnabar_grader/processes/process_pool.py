"""Keeps as many worker processes of a kind as there should be."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Outcome, Task
from cinnabar_grader.kinds import Check, Kind
from cinnabar_grader.processes.frames import GraderFacts
from cinnabar_grader.processes.worker_process import RETIRED, Bounds, State, WorkerProcess

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.2, 30.0)
"""Bounds of the pause before a process is started anew after one that ended without having done anything;
doubled each time, a random part of it is waited."""


class ProcessPool:
    """Worker processes of one kind.

    One that ends by itself is replaced, one that is worn (see `Bounds`) when its successor is ready. Fewer
    processes are had by letting some retire: none is ended over a batch. Names never repeat.
    """

    def __init__(
        self,
        config: GraderConfig,
        kind: Kind,
        size: int,
        *,
        bounds: Bounds | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives 0 to 1."""
        self._config = config
        self._kind = kind
        self._size = size
        self._bounds = bounds or Bounds()
        self._jitter = jitter
        self._numbers = itertools.count(1)
        self._processes: list[WorkerProcess] = []
        self._waiting: deque[asyncio.Future[WorkerProcess]] = deque()
        self._news = asyncio.Event()
        self._fruitless = 0
        self._not_before = 0.0

    @property
    def size(self) -> int:
        """How many there should be."""
        return self._size

    @property
    def busy(self) -> int:
        """How many work."""
        return sum(process.busy for process in self._processes)

    @property
    def waiting(self) -> int:
        """Batches that wait for a process."""
        return len(self._waiting)

    @property
    def processes(self) -> Sequence[WorkerProcess]:
        """All that live, in the order of their start."""
        return tuple(self._processes)

    @property
    def graders(self) -> dict[str, GraderFacts]:
        """Who grades which queue, as soon as one process is ready."""
        for process in self._processes:
            if process.graders:
                return dict(process.graders)
        return {}

    def resize(self, size: int) -> None:
        """From now on so many, at least 1."""
        self._size = max(1, size)
        self._news.set()

    def check(self, name: str) -> Check:
        """The check of this name: ConnectionError unless a process is ready that says it is healthy."""
        return partial(self._check, name)

    async def ready(self) -> None:
        """Waits until some process is ready."""
        self.release(await self.acquire())

    async def acquire(self) -> WorkerProcess:
        """Waits for a process that is ready and idle; whoever has it says `release` once."""
        place: asyncio.Future[WorkerProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._give_out()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release(place.result())  # it was given to somebody who is gone
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def release(self, process: WorkerProcess) -> None:
        """Gives a process back; it is given to others when it has answered."""
        process.taken = False
        self._changed()

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes of a batch, by the next process that is idle. ProcessEnded."""
        process = await self.acquire()
        try:
            return await process.grade(queue, tasks)
        finally:
            self.release(process)

    async def run(self) -> None:
        """Keeps the processes; kills them when it is cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                self._retire()
                pause = self._not_before - loop.time()
                if pause <= 0:
                    for _ in range(self._missing()):
                        name = f"{self._kind.name}-{next(self._numbers)}"
                        process = WorkerProcess(name, self._config, self._kind, self._bounds, self._changed)
                        self._processes.append(process)
                        group.create_task(self._live(process), name=name)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause if pause > 0 else None):
                        await self._news.wait()

    def _changed(self) -> None:
        self._give_out()
        self._news.set()

    def _give_out(self) -> None:
        for process in self._processes:
            while self._waiting and self._waiting[0].done():
                self._waiting.popleft()
            if not self._waiting:
                return
            if process.state is State.READY and not process.busy and not process.taken:
                process.taken = True
                self._waiting.popleft().set_result(process)

    def _missing(self) -> int:
        """How many to start: those that retire are gone already, worn ones are to be replaced."""
        return self._size - sum(
            process.state in (State.STARTING, State.READY) and not process.worn for process in self._processes
        )

    def _retire(self) -> None:
        """Lets those go that are too many: worn ones when there are others, then the newest."""
        fresh = [process for process in self._processes if process.state is State.READY and not process.worn]
        for process in self._processes:
            if process.state is State.READY and process.worn and len(fresh) >= self._size:
                log.info("process replaced", extra={"worker_process": process.name, "worn": process.worn})
                process.retire()
        for process in reversed(self._processes):
            if self._missing() >= 0:
                break
            if process.state in (State.STARTING, State.READY) and not process.worn:
                process.retire()

    async def _live(self, process: WorkerProcess) -> None:
        retired = False
        try:
            await process.run()
            retired = process.state is State.ENDED and process.ending == RETIRED
        finally:
            self._processes.remove(process)
            self._changed()
        level = logging.INFO if retired else logging.ERROR
        log.log(level, "process ended", extra={"worker_process": process.name, "how": process.ending})
        if retired or process.batches > 0:
            self._fruitless = 0
            return
        shortest, longest = BACKOFF_SECONDS
        bound = min(longest, shortest * 2.0**self._fruitless)
        self._fruitless = min(self._fruitless + 1, 16)
        self._not_before = asyncio.get_running_loop().time() + bound * self._jitter()

    async def _check(self, name: str) -> None:
        if not any(process.checks.get(name) for process in self._processes if process.state is State.READY):
            raise ConnectionError(f"no worker process of {self._kind.name} has {name}")
