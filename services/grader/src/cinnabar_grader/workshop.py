"""The kinds of a grader process at work: opens them, and gives their lanes to the streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol, cast

from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Grader, Outcome, Task, TaskGrader
from cinnabar_grader.kinds import Check, Colleagues, Kind, Opened, Opening, Place
from cinnabar_grader.pipeline import Lane, LaneOf, graded
from cinnabar_grader.slot_lane import SlotLane
from cinnabar_grader.slots import Slots

log = logging.getLogger(__name__)


class Stream(Protocol):
    """Where lanes are served; `SchedulerStream` is one."""

    def serve(self, queue: str, lane_of: LaneOf) -> None:
        """The grader of a queue is ready: ask for its tasks."""
        ...


class Workshop:
    """Opens the kinds of the configured queues.

    Kinds in processes take long to load: their queues are announced at once, and served when they are
    there. All others are open before a scheduler hears of this process.
    """

    def __init__(self, config: GraderConfig, kinds: Sequence[Kind], exits: AsyncExitStack) -> None:
        """``exits`` is closed after the streams have ended."""
        self._config = config
        self._exits = exits
        wanted = set(config.queues)
        while more := {need for kind in kinds if wanted & set(kind.queues) for need in kind.needs} - wanted:
            wanted |= more
        self._kinds = [kind for kind in kinds if wanted & set(kind.queues)]
        self._lanes: dict[str, LaneOf] = {}
        self._graders: dict[str, Grader | TaskGrader] = {}
        self._checks: dict[str, list[Check]] = {}
        self._executors: dict[str, ThreadPoolExecutor] = {}

    async def open(self) -> None:
        """Opens all kinds but those in processes. RuntimeError when no queue at all can be served."""
        for kind in self._kinds:
            if kind.place is Place.PROCESSES:
                for name in kind.checks:
                    self._checks[name] = [partial(self._not_open, kind)]
            else:
                self._take(kind, await self._open(kind))
        refused = [queue for queue in self._config.queues if queue not in self.queues]
        if refused:
            log.info("queues not served here", extra={"queues": refused})
        if not self.queues:
            raise RuntimeError("none of the queues can be served here")

    async def open_late(self, streams: Sequence[Stream]) -> None:
        """Opens the kinds in processes, and serves them."""
        for kind in self._kinds:
            if kind.place is Place.PROCESSES:
                for name in kind.checks:
                    self._checks[name] = []
                self._take(kind, await self._open(kind))
                self._serve(streams, kind.queues)

    def serve(self, streams: Sequence[Stream]) -> None:
        """Gives what is open to these streams."""
        self._serve(streams, self._lanes)

    @property
    def queues(self) -> list[str]:
        """To be announced, in the order of the configuration."""
        late = {queue for kind in self._kinds if kind.place is Place.PROCESSES for queue in kind.queues}
        return [queue for queue in self._config.queues if queue in self._lanes or queue in late]

    @property
    def checks(self) -> Mapping[str, Check]:
        """Dependencies of the kinds; one of several kinds must be healthy for all of them."""
        return {name: partial(self._check, name) for name in self._checks}

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """See Colleagues."""
        grader = self._graders.get(queue)
        if grader is None or not hasattr(grader, "batch_limit"):
            raise ConnectionError(f"there is no grader of {queue!r} here")
        batches = cast("Grader", grader)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executors[queue], graded, batches, tasks)

    async def _open(self, kind: Kind) -> Opened:
        colleagues: Colleagues = self
        return await kind.open(Opening(config=self._config, exits=self._exits, colleagues=colleagues))

    def _take(self, kind: Kind, opened: Opened) -> None:
        slots = Slots(self._config.max_workers)
        for grader in opened.graders:
            queue = grader.queue
            self._graders[queue] = grader
            if kind.place is Place.SLOTS:
                self._lanes[queue] = partial(SlotLane, cast("TaskGrader", grader), slots=slots)
            else:
                executor = self._exits.enter_context(ThreadPoolExecutor(1, thread_name_prefix=queue))
                self._executors[queue] = executor
                self._lanes[queue] = partial(Lane, cast("Grader", grader), executor=executor)
        for name, check in opened.checks.items():
            self._checks.setdefault(name, []).append(check)

    def _serve(self, streams: Sequence[Stream], queues: Collection[str]) -> None:
        for queue in queues:
            for stream in streams:
                stream.serve(queue, self._lanes[queue])

    async def _check(self, name: str) -> None:
        for check in self._checks[name]:
            await check()

    async def _not_open(self, kind: Kind) -> None:
        raise ConnectionError(f"{kind.name} is not open yet")
