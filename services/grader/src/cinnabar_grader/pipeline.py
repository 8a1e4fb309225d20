"""From waiting tasks to outcomes, batch by batch, one lane per queue.

Lanes do not wait for each other: what may block is graded in a thread of its
own, the rest in slices that are short enough for the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from cinnabar_grader.graders import (
    Failed,
    FailureCode,
    Grader,
    Outcome,
    Task,
    Ungradable,
    defect,
)


class Work(Protocol):
    """Where tasks come from and outcomes go; `WorkerSession` is one."""

    def start(self, name: str, limit: int) -> list[Task]:
        """Up to ``limit`` tasks of a queue, which are running from now on."""
        ...

    def finished(self, outcomes: Iterable[Outcome]) -> None:
        """Takes outcomes of running tasks."""
        ...


class Lane:
    """Grades the tasks of one queue of one stream."""

    def __init__(
        self, grader: Grader, *, work: Work, executor: Executor, reported: Callable[[], None]
    ) -> None:
        """``executor`` runs what blocks; ``reported`` is called when there are new outcomes."""
        self.queue = grader.queue
        self._grader = grader
        self._work = work
        self._executor = executor
        self._reported = reported
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        """There are tasks waiting."""
        self._arrived.set()

    async def run(self) -> None:
        """Works for ever."""
        while True:
            if await self.run_once():
                await asyncio.sleep(0)  # heartbeats and other lanes come in between
            else:
                self._arrived.clear()
                await self._arrived.wait()

    async def run_once(self) -> int:
        """Grades one batch of what waits; returns its size."""
        batch = self._work.start(self.queue, self._grader.batch_limit)
        if not batch:
            return 0
        if self._grader.blocking(batch):
            loop = asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(self._executor, graded, self._grader, batch)
        else:
            outcomes = graded(self._grader, batch)
        self._work.finished(outcomes)
        self._reported()
        return len(batch)


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
    except (ConnectionError, TimeoutError) as error:
        return _failed(batch, FailureCode.UNAVAILABLE, f"something is away: {type(error).__name__}")
    except Ungradable as error:
        if len(batch) == 1 or error.code is FailureCode.UNAVAILABLE:
            return _failed(batch, error.code, error.message)
        return [outcome for task in batch for outcome in graded(grader, (task,))]
    except Exception as error:  # a grader may break in any way; the task must not be lost with it
        if len(batch) == 1:
            return [defect(batch[0], error)]
        return [outcome for task in batch for outcome in graded(grader, (task,))]
    if len(outcomes) != len(batch):
        answered = {outcome.token for outcome in outcomes}
        forgotten = [task for task in batch if task.token not in answered and not task.cancelled]
        outcomes += _failed(forgotten, FailureCode.INTERNAL, "the grader returned no outcome")
    return outcomes


def _failed(batch: Sequence[Task], code: FailureCode, message: str) -> list[Outcome]:
    return [Failed(task.token, code, message) for task in batch]
