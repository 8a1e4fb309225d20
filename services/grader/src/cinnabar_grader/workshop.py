"""The kinds of a grader process at work: opens them, and gives their lanes to the streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from cinnabar_grader import machine
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Grader, Outcome, Task, TaskGrader
from cinnabar_grader.kinds import Check, Kind, Opening, Place
from cinnabar_grader.pipeline import Lane, LaneOf, graded
from cinnabar_grader.pool import PoolTerms, at_most, fitting
from cinnabar_grader.processes.lane import ProcessLane
from cinnabar_grader.processes.process_pool import ProcessPool
from cinnabar_grader.processes.worker_process import Bounds, ProcessEnded
from cinnabar_grader.slot_lane import SlotLane
from cinnabar_grader.slots import Slots
from cinnabar_grader.staff import Staff, Stream

log = logging.getLogger(__name__)

INLINE_CREDITS = 256
"""Tasks of a queue that one stream takes ahead where work runs inline: some 10 ms of rules."""
PROCESS_BYTES = 512 * 1024 * 1024
"""What a worker process is taken to need, when it is reckoned how many there may be."""


class Answering(Protocol):
    """Grades a batch, somewhere in this process."""

    async def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        """At most one outcome per task."""
        ...


@dataclass(slots=True)
class _Crew:
    """A kind that is opened along with its workers, in processes."""

    kind: Kind
    pool: ProcessPool
    staff: Staff


class Workshop:
    """Opens the kinds of the configured queues.

    Kinds in processes take long to load: their queues are announced at once, and served when they are
    there. All others are open before a scheduler hears of this process.
    """

    def __init__(self, config: GraderConfig, kinds: Sequence[Kind], exits: AsyncExitStack) -> None:
        """``exits`` is closed after the streams have ended."""
        self._config = config
        self._exits = exits
        self._kinds = [kind for kind in kinds if not wanted_of(config.queues, kinds).isdisjoint(kind.queues)]
        self._lanes: dict[str, LaneOf] = {}
        self._answering: dict[str, Answering] = {}
        self._checks: dict[str, list[Check]] = {}
        self._staff: list[Staff] = []
        self._crews: list[_Crew] = []
        self._terms = PoolTerms(
            min_workers=config.min_workers,
            max_workers=config.max_workers,
            up=config.scale_up,
            down=config.scale_down,
            check_seconds=config.scale_seconds,
            backlog_seconds=config.backlog_seconds,
        )

    async def open(self) -> None:
        """Opens all kinds but those in processes. RuntimeError when no queue at all can be served."""
        for kind in self._kinds:
            if kind.place is Place.PROCESSES:
                self._hire(kind)
            else:
                await self._open(kind)
        refused = [queue for queue in self._config.queues if queue not in self.queues]
        if refused:
            log.info("queues not served here", extra={"queues": refused})
        if not self.queues:
            raise RuntimeError("none of the queues can be served here")

    async def run(self, streams: Sequence[Stream]) -> None:
        """Serves the streams with what is open, and with the rest when it is; for ever.

        Worker processes are killed when this is cancelled.
        """
        for queue, lane_of in self._lanes.items():
            for stream in streams:
                stream.serve(queue, lane_of)
        async with asyncio.TaskGroup() as group:
            for staff in self._staff:
                group.create_task(staff.run(streams), name="staff")
            for crew in self._crews:
                group.create_task(crew.pool.run(), name=f"pool-{crew.kind.name}")
                group.create_task(self._serve_when_ready(crew, streams), name=f"loader-{crew.kind.name}")

    @property
    def credits(self) -> dict[str, int]:
        """How many tasks to take ahead at first, for each queue to be announced, in the order configured."""
        return {queue: self._credits_of(queue) for queue in self.queues}

    @property
    def queues(self) -> list[str]:
        """To be announced, in the order configured."""
        late = {queue for crew in self._crews for queue in crew.kind.queues}
        return [queue for queue in self._config.queues if queue in self._lanes or queue in late]

    @property
    def checks(self) -> Mapping[str, Check]:
        """Dependencies of the kinds; one of several kinds must be healthy for all of them."""
        return {name: partial(self._check, name) for name in self._checks}

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """See Colleagues."""
        answering = self._answering.get(queue)
        if answering is None:
            raise ConnectionError(f"there is no grader of {queue!r} here now")
        return await answering(tasks)

    async def _open(self, kind: Kind) -> None:
        opened = await kind.open(Opening(config=self._config, exits=self._exits, colleagues=self))
        for name, check in opened.checks.items():
            self._checks.setdefault(name, []).append(check)
        if kind.place is Place.INLINE:
            for grader in cast("Sequence[Grader]", opened.graders):
                executor = self._exits.enter_context(ThreadPoolExecutor(1, thread_name_prefix=grader.queue))
                self._lanes[grader.queue] = partial(Lane, grader, executor=executor)
                self._answering[grader.queue] = partial(_in_thread, executor, grader)
            return
        terms = self._terms if opened.most is None else at_most(self._terms, opened.most)
        slots = Slots(terms.min_workers)
        staff = Staff(kind.name, slots, terms, self._slot_credits)
        self._staff.append(staff)
        for grader in cast("Sequence[TaskGrader]", opened.graders):
            staff.queues.add(grader.queue)
            self._lanes[grader.queue] = partial(SlotLane, grader, slots=slots)

    def _hire(self, kind: Kind) -> None:
        """Prepares the worker processes of a kind; they start in `run`."""
        config = self._config
        terms = fitting(
            self._terms,
            cores=machine.cores(),
            memory_bytes=machine.free_memory(),
            worker_bytes=PROCESS_BYTES,
        )
        bounds = Bounds(
            silence_seconds=config.silence_seconds,
            batch_seconds=config.batch_seconds,
            memory_bytes=config.process_mib * 1024 * 1024,
            batches=config.process_batches,
        )
        pool = ProcessPool(config, kind, terms.min_workers, bounds=bounds)
        staff = Staff(kind.name, pool, terms, partial(self._process_credits, pool))
        self._staff.append(staff)
        self._crews.append(_Crew(kind, pool, staff))
        for name in kind.checks:
            self._checks.setdefault(name, []).append(pool.check(name))

    async def _serve_when_ready(self, crew: _Crew, streams: Sequence[Stream]) -> None:
        await crew.pool.ready()
        for queue, facts in crew.pool.graders.items():
            self._lanes[queue] = lane_of = partial(ProcessLane, queue, facts, pool=crew.pool)
            self._answering[queue] = partial(_in_process, crew.pool, queue)
            crew.staff.queues.add(queue)
            for stream in streams:
                stream.serve(queue, lane_of)
        crew.staff.want(streams)

    def _credits_of(self, queue: str) -> int:
        for staff in self._staff:
            if queue in staff.queues:
                return self._slot_credits(queue, staff.workers.size)
        return self._config.configured_credits.get(queue, INLINE_CREDITS if queue in self._lanes else 1)

    def _slot_credits(self, queue: str, size: int) -> int:
        """As many as there are slots: a task that would wait here had better wait where all can have it."""
        return self._config.configured_credits.get(queue, size)

    def _process_credits(self, pool: ProcessPool, queue: str, size: int) -> int:
        """A batch under way and one to follow for each process, and as much to gather the next from."""
        limit = pool.graders[queue].batch_limit
        return self._config.configured_credits.get(queue, 2 * limit * (size + 1))

    async def _check(self, name: str) -> None:
        for check in self._checks[name]:
            await check()


def wanted_of(queues: Sequence[str], kinds: Sequence[Kind]) -> set[str]:
    """These queues, and those that their kinds need, and so on."""
    wanted = set(queues)
    while more := {need for kind in kinds if wanted & set(kind.queues) for need in kind.needs} - wanted:
        wanted |= more
    return wanted


async def _in_thread(executor: ThreadPoolExecutor, grader: Grader, tasks: Sequence[Task]) -> list[Outcome]:
    return await asyncio.get_running_loop().run_in_executor(executor, graded, grader, tasks)


async def _in_process(pool: ProcessPool, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
    try:
        return await pool.grade(queue, tasks)
    except ProcessEnded as error:
        raise ConnectionError(str(error)) from error
