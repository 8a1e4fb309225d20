"""Kinds of graders for tests: one waits until it is told to go on, one harms its worker process."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import cast

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import CustomSpec, Item
from cinnabar_grader.graders import (
    ANSWER,
    CriterionScore,
    Failed,
    FailureCode,
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


CRASHING = "custom-crashing"


class Crashing:
    """A `Grader` for worker processes that does to its process what an answer says.

    Its feedback is the id of the process, a blank, and the size of the batch.
    """

    name = "crashing"
    version = "1"
    queue = CRASHING
    batch_limit = 4

    def __init__(self) -> None:
        self._kept: list[bytes] = []

    def blocking(self, batch: Sequence[Task]) -> bool:
        return True

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        for task in batch:
            match task.answer:
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(3600)
                case "freeze":  # with the interpreter's lock held, as broken native code does
                    ctypes.PyDLL(None).sleep(3600)
                case "grow":
                    self._kept.append(os.urandom(64 * 1024 * 1024))
                case "break":
                    raise ValueError("secret")
                case "odd":
                    return [Failed(task.token, FailureCode.INTERNAL, cast("str", lambda: None))]
                case _:
                    pass
        return [
            Graded(
                task.token,
                1,
                1,
                [CriterionScore(ANSWER, 1, 1)],
                f"{os.getpid()} {len(batch)}",
                Provenance(self.name, self.version),
            )
            for task in batch
        ]


async def _open_crashing(opening: Opening) -> Opened:
    async def check() -> None:
        pass

    return Opened([Crashing()], {"crash": check})


async def _open_never(opening: Opening) -> Opened:
    raise RuntimeError("there is no model")


CRASHING_KIND = Kind(
    name="crashing", queues=(CRASHING,), place=Place.PROCESSES, open=_open_crashing, checks=("crash",)
)
NEVER_KIND = Kind(name="never", queues=(CRASHING,), place=Place.PROCESSES, open=_open_never)


def crashing(number: int, answer: str = "") -> Homework:
    """A task for it."""
    item = Item(item="crashing", points=1, custom=CustomSpec(kind="crashing"))
    return Homework(
        f"s{number}/crashing", CRASHING, "r1/crashing", item, Answer(item="crashing", text=answer or "x")
    )
