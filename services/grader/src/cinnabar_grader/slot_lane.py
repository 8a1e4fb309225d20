"""The lane of graders that mostly wait: one coroutine per task, as many at once as there are slots."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from cinnabar_grader.graders import LeaseToken, Outcome, Progress, Task, TaskGrader
from cinnabar_grader.parallel_lane import ParallelLane
from cinnabar_grader.pipeline import Desk, failure_of, no_outcome
from cinnabar_grader.slots import Slots


class SlotLane(ParallelLane[None]):
    """Grades the tasks of one queue of one stream.

    A task that is cancelled has its coroutine cancelled; nothing is reported of it.
    """

    def __init__(self, grader: TaskGrader, desk: Desk, slots: Slots) -> None:
        super().__init__(grader, grader.queue, desk, slots, 1)
        self._grader = grader

    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """See QueueLane."""
        for token in tokens:
            if token in self._running:
                self._running[token].cancel()

    async def _work(self, place: None, batch: Sequence[Task]) -> Sequence[Outcome]:
        (task,) = batch
        try:
            outcome = await self._grader.grade(task, self._report)
            return [outcome if outcome.token == task.token else no_outcome(task)]
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return [no_outcome(task)]  # the grader's own, which would leave the lease without an end
        except Exception as error:  # a grader may break in any way; the task must not be lost with it
            return [failure_of(task, error)]

    def _report(self, progress: Progress) -> None:
        self._desk.work.progressed(progress)
        self._desk.reported()
