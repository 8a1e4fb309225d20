"""From waiting tasks to outcomes: a lane per queue of a stream.

Lanes do not wait for each other. `Lane` grades batches here, in slices that are short enough for the
event loop, and in a thread of its own what may block; others are in modules of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cinnabar_grader.answer_files import Files
from cinnabar_grader.graders import (
    Failed,
    FailureCode,
    Grader,
    LeaseToken,
    Outcome,
    Progress,
    Task,
    Ungradable,
    defect,
)
from cinnabar_grader.transfers import Transfers


class Work(Protocol):
    """Where tasks come from and outcomes go; `WorkerSession` is one."""

    def start(self, name: str, limit: int) -> list[Task]:
        """Up to ``limit`` tasks of a queue, which are running from now on."""
        ...

    def finished(self, outcomes: Iterable[Outcome]) -> None:
        """Takes outcomes of running tasks."""
        ...

    def progressed(self, progress: Progress) -> None:
        """Takes what is finished of a running task."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What a lane has of its stream."""

    work: Work
    reported: Callable[[], None]
    """To be called when there are new outcomes or progress."""
    files: Files | None = None
    """Without it answers that are files cannot be graded."""


class QueueLane(Protocol):
    """Works on the tasks of one queue of one stream."""

    def wake(self) -> None:
        """There are tasks waiting."""
        ...

    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """Nobody wants the outcomes of these any more: stops their work where that can be done."""
        ...

    async def run(self) -> None:
        """Works for ever. When it is cancelled, so is the work that can be."""
        ...


LaneOf: TypeAlias = "Callable[[Desk], QueueLane]"


class Lane:
    """Grades the tasks of one queue of one stream, batch by batch. Implements `QueueLane`."""

    def __init__(self, grader: Grader, desk: Desk, executor: Executor) -> None:
        """``executor`` runs what blocks."""
        self.queue = grader.queue
        self._grader = grader
        self._desk = desk
        self._executor = executor
        self._arrived = asyncio.Event()
        self._transfers = Transfers(grader, desk.files, finished=self._finish, arrived=self.wake)

    def wake(self) -> None:
        """See QueueLane."""
        self._arrived.set()

    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """Nothing: batches are short, and graders look at `Task.cancelled`."""

    async def run(self) -> None:
        """See QueueLane."""
        async with self._transfers:
            while True:
                if await self.run_once():
                    await asyncio.sleep(0)  # heartbeats and other lanes come in between
                else:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def run_once(self) -> int:
        """Grades one batch of what waits; returns its size."""
        task = self._transfers.next()
        if task is not None:
            try:
                await self._grade([task])
            finally:
                self._transfers.settle(task)
            return 1
        started = self._desk.work.start(self.queue, self._grader.batch_limit)
        batch = self._transfers.without_files(started)
        if batch:
            await self._grade(batch)
        return len(started)

    async def _grade(self, batch: Sequence[Task]) -> None:
        if self._grader.blocking(batch):
            loop = asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(self._executor, graded, self._grader, batch)
        else:
            outcomes = graded(self._grader, batch)
        self._transfers.finish(outcomes)

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._desk.work.finished(outcomes)
        self._desk.reported()


def graded(grader: Grader, batch: Sequence[Task]) -> list[Outcome]:
    """One outcome per task that is still wanted, whatever the grader does.

    When something that it needs is away, all of them fail with that. When it raises anything else, the
    tasks are graded one by one, so that only the bad ones fail. A task that it returns nothing for
    fails too, unless it was cancelled meanwhile.
    """
    batch = [task for task in batch if not task.cancelled]
    if not batch:
        return []
    try:
        outcomes = grader.grade(batch)
    except Exception as error:  # a grader may break in any way; the task must not be lost with it
        if len(batch) == 1 or away(error):
            return [failure_of(task, error) for task in batch]
        return [outcome for task in batch for outcome in graded(grader, (task,))]
    if len(outcomes) != len(batch):
        answered = {outcome.token for outcome in outcomes}
        forgotten = [task for task in batch if task.token not in answered and not task.cancelled]
        outcomes += [no_outcome(task) for task in forgotten]
    return outcomes


def away(error: Exception) -> bool:
    """Whether it says that something the grader needs is away, which is no task's fault."""
    if isinstance(error, Ungradable):
        return error.code is FailureCode.UNAVAILABLE
    return isinstance(error, ConnectionError | TimeoutError)


def failure_of(task: Task, error: Exception) -> Failed:
    """What an exception of a grader means for the task that it was raised for."""
    if isinstance(error, Ungradable):
        return Failed(task.token, error.code, error.message)
    if away(error):
        return Failed(task.token, FailureCode.UNAVAILABLE, f"something is away: {type(error).__name__}")
    return defect(task, error)


def no_outcome(task: Task) -> Failed:
    """The failure of a grader that said nothing of a task."""
    return Failed(task.token, FailureCode.INTERNAL, "the grader returned no outcome")
