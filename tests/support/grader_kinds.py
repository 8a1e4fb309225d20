"""A kind of graders for tests: it waits until it is told to go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import CustomSpec, Item
from cinnabar_grader.graders import (
    ANSWER,
    CriterionScore,
    Graded,
    Outcome,
    Progress,
    Provenance,
    Task,
    TestResult,
    TestVerdict,
)
from cinnabar_grader.kinds import Check, Kind, Opened, Opening, Place
from tests.support.grader_scheduler import Homework

QUEUE = "custom-held"


class HeldTasks:
    """A `TaskGrader` that reports how far it is at every step of a task; ``steps`` lets them go on."""

    name = "held"
    version = "1"
    queue = QUEUE

    def __init__(self, checks: dict[str, Check] | None = None, queue: str = QUEUE) -> None:
        self.queue = queue
        self.steps = asyncio.Semaphore(0)
        self.running: set[str] = set()
        self.most = 0
        self._checks = checks or {}

    def go(self, steps: int) -> None:
        """So many more steps, of any task."""
        for _ in range(steps):
            self.steps.release()

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        self.running.add(task.token)
        self.most = max(self.most, len(self.running))
        try:
            tests: list[TestResult] = []
            for number in range(2):
                await self.steps.acquire()
                tests.append(TestResult(f"t{number}", TestVerdict.ACCEPTED, 1, 1))
                report(Progress(task.token, tuple(tests)))
        finally:
            self.running.discard(task.token)
        score = CriterionScore(ANSWER, 2, 2)
        return Graded(task.token, 2, 2, [score], "", Provenance(self.name, self.version), tests=tests)

    def kind(self) -> Kind:
        """Serves this one grader."""

        async def opened(opening: Opening) -> Opened:
            return Opened([self], self._checks)

        return Kind(name="held", queues=(self.queue, "custom-absent"), place=Place.SLOTS, open=opened)


def held(number: int) -> Homework:
    """A task for it."""
    item = Item(item="held", points=2, custom=CustomSpec(kind="held"))
    return Homework(f"s{number}/held", QUEUE, "r1/held", item, Answer(item="held", text="x"))
