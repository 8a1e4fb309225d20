"""The lane of graders in worker processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cinnabar_grader.graders import Failed, FailureCode, LeaseToken, Outcome, Task, defect
from cinnabar_grader.parallel_lane import ParallelLane
from cinnabar_grader.pipeline import Desk
from cinnabar_grader.processes.frames import GraderFacts
from cinnabar_grader.processes.process_pool import ProcessPool
from cinnabar_grader.processes.worker_process import ProcessEnded, WorkerProcess


class ProcessLane(ParallelLane[WorkerProcess]):
    """Grades the tasks of one queue of one stream.

    When a process ends over a batch, all tasks of the batch fail with INTERNAL. They come again, each
    alone then, so the one that is at fault is found.
    """

    def __init__(self, queue: str, facts: GraderFacts, desk: Desk, pool: ProcessPool) -> None:
        super().__init__(facts, queue, desk, pool, facts.batch_limit)

    def cancel(self, tokens: Collection[LeaseToken]) -> None:
        """Nothing: batches are short."""

    async def _work(self, place: WorkerProcess, batch: Sequence[Task]) -> Sequence[Outcome]:
        try:
            return await place.grade(self.queue, batch)
        except ProcessEnded as error:
            message = f"the worker process: {error}"
            return [Failed(task.token, FailureCode.INTERNAL, message) for task in batch]
        except Exception as error:  # what cannot be sent there, for example
            return [defect(task, error) for task in batch]
