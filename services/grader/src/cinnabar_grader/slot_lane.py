"""The lane of graders that mostly wait: one coroutine per task, as many at once as there are slots."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from cinnabar_grader.graders import LeaseToken, Outcome, Progress, Task, TaskGrader
from cinnabar_grader.pipeline import Desk, failure_of, no_outcome
from cinnabar_grader.slots import Slots
from cinnabar_grader.transfers import Transfers


class SlotLane:
    """Grades the tasks of one queue of one stream. Implements `QueueLane`.

    ``slots`` may be shared with other lanes, of this stream and of others: a lane takes one only for a
    task that is there. A task that is cancelled has its coroutine cancelled; nothing is reported of it.
    """

    def __init__(self, grader: TaskGrader, desk: Desk, slots: Slots) -> None:
        self.queue = grader.queue
        self._grader = grader
        self._desk = desk
        self._slots = slots
        self._arrived = asyncio.Event()
        self._running: dict[LeaseToken, asyncio.Task[None]] = {}
        self._transfers = Transfers(grader, desk.files, finished=self._finish, arrived=self.wake)

    def wake(self) -> None:
        """See QueueLane."""
        self._arrived.set()

    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """See QueueLane."""
        for token in tokens:
            if token in self._running:
                self._running[token].cancel()

    async def run(self) -> None:
        """See QueueLane."""
        async with self._transfers, asyncio.TaskGroup() as group:
            while True:
                await self._arrived.wait()
                await self._slots.acquire()
                task = self._next()
                if task is None:
                    self._slots.release()
                    continue
                running = group.create_task(self._work(task), name=f"task-{self.queue}")
                self._running[task.token] = running
                # Not at the end of the coroutine: one that is cancelled early never begins.
                running.add_done_callback(lambda _, task=task: self._done(task))

    def _next(self) -> Task | None:
        """A task that can be graded now; None, and no more `_arrived`, when there is none."""
        task = self._transfers.next()
        while task is None:
            started = self._desk.work.start(self.queue, 1)
            if not started:
                self._arrived.clear()
                return None
            task = next(iter(self._transfers.without_files(started)), None)
        return task

    def _done(self, task: Task) -> None:
        del self._running[task.token]
        self._transfers.settle(task)
        self._slots.release()

    async def _work(self, task: Task) -> None:
        if task.cancelled:
            return
        try:
            outcome = await self._grader.grade(task, self._report)
            if outcome.token != task.token:
                outcome = no_outcome(task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            outcome = no_outcome(task)  # the grader's own, which would leave the lease without an end
        except Exception as error:  # a grader may break in any way; the task must not be lost with it
            outcome = failure_of(task, error)
        self._transfers.finish([outcome])

    def _report(self, progress: Progress) -> None:
        self._desk.work.progressed(progress)
        self._desk.reported()

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        self._desk.work.finished(outcomes)
        self._desk.reported()
