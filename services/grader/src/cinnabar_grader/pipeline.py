"""From waiting tasks to outcomes, batch by batch, one lane per queue.

Lanes do not wait for each other: what may block is graded in a thread of its
own, the rest in slices that are short enough for the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from cinnabar_grader.answer_files import Files, NotText, not_text, unkeepable
from cinnabar_grader.graders import (
    Artifact,
    Failed,
    FailureCode,
    FileAnswer,
    Graded,
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


FILES_AT_ONCE = 8
"""Files of a lane on their way or waiting to be graded, which is how many are in memory."""


class Lane:
    """Grades the tasks of one queue of one stream.

    Answers that are files are fetched aside, each to be graded when it is there: a
    store of objects that is slow or away holds up nobody else.
    """

    def __init__(
        self,
        grader: Grader,
        *,
        work: Work,
        executor: Executor,
        reported: Callable[[], None],
        files: Files | None = None,
    ) -> None:
        """``executor`` runs what blocks; ``reported`` is called when there are new outcomes.

        Without ``files`` answers that are files cannot be graded.
        """
        self.queue = grader.queue
        self._grader = grader
        self._work = work
        self._executor = executor
        self._reported = reported
        self._files = files
        self._arrived = asyncio.Event()
        self._aside = asyncio.TaskGroup()
        self._room = asyncio.Semaphore(FILES_AT_ONCE)
        self._fetched: deque[tuple[Task, asyncio.Event]] = deque()

    def wake(self) -> None:
        """There are tasks waiting."""
        self._arrived.set()

    async def run(self) -> None:
        """Works for ever."""
        async with self._aside:
            while True:
                if await self.run_once():
                    await asyncio.sleep(0)  # heartbeats and other lanes come in between
                else:
                    self._arrived.clear()
                    await self._arrived.wait()

    async def run_once(self) -> int:
        """Grades one batch of what waits; returns its size."""
        if self._fetched:
            task, done = self._fetched.popleft()
            try:
                await self._grade([task])
            finally:
                task.answer = None  # the lease outlives its grading, and should not keep 16 MiB alive
                done.set()
            return 1
        batch = self._work.start(self.queue, self._grader.batch_limit)
        size = len(batch)
        if self._files is not None and any(type(task.answer) is FileAnswer for task in batch):
            for task in batch:
                if isinstance(task.answer, FileAnswer):
                    self._aside.create_task(self._fetch(self._files, task, task.answer), name="fetch")
            batch = [task for task in batch if not isinstance(task.answer, FileAnswer)]
        if batch:
            await self._grade(batch)
        return size

    async def _grade(self, batch: Sequence[Task]) -> None:
        if self._grader.blocking(batch):
            loop = asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(self._executor, graded, self._grader, batch)
        else:
            outcomes = graded(self._grader, batch)
        heavy = [one for one in outcomes if isinstance(one, Graded) and one.artifacts]
        if heavy:
            outcomes = [one for one in outcomes if not (isinstance(one, Graded) and one.artifacts)]
            for one in heavy:
                self._aside.create_task(self._keep(one), name="keep")
        self._finish(outcomes)

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._work.finished(outcomes)
        self._reported()

    async def _fetch(self, files: Files, task: Task, file: FileAnswer) -> None:
        """Fetches the answer of a task, and is done when it is graded."""
        async with self._room:
            if task.cancelled:
                return
            try:
                task.answer = await files.text(task.token, file)
            except NotText:
                self._finish([not_text(task, self._grader)])
            except Ungradable as error:
                self._finish([Failed(task.token, error.code, error.message)])
            else:
                done = asyncio.Event()
                self._fetched.append((task, done))
                self.wake()
                await done.wait()

    async def _keep(self, outcome: Graded) -> None:
        """Puts the artifacts of a grade away, then reports it."""
        failed = unkeepable(outcome)
        if failed is None and self._files is None:
            failed = Failed(outcome.token, FailureCode.INTERNAL, "there is no place for artifacts")
        if failed is None and self._files is not None:
            try:
                outcome.artifacts = [
                    await self._files.keep(outcome.token, one) if isinstance(one, Artifact) else one
                    for one in outcome.artifacts
                ]
            except Ungradable as error:
                failed = Failed(outcome.token, error.code, error.message)
        self._finish([failed or outcome])


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
