"""Programs of students, graded in the sandbox: how often tests say what the course said, and how fast.

Without the collected programs the sample that ships is graded, which says something about speed only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_grader.code import CodeGrader, CodeItem, Language, toolchains
from cinnabar_grader.convert import compile_item
from cinnabar_grader.graders import Graded, LeaseToken, Task, Ungradable
from cinnabar_grader.sandbox import choose
from cinnabar_local.checkout import checkout
from cinnabar_local.demo import programs
from cinnabar_local.demo.programs import Program, Programs

AGREEMENT = "code_agreement_with_course"
RATE = "code_submissions_per_second"
NAMES = (AGREEMENT, RATE)
AGREEMENT_BAR = 98.0
"""Percent. Some of the programs that the course took as wrong pass every test: 98.6 is the most."""
_ATTEMPTS = 3  # of a program whose box broke; a scheduler tries as often


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one program: whether the course took it, and whether it passed all tests."""

    correct: bool
    passed: bool


def collected() -> Programs | None:
    """The collected programs, of CINNABAR_DATA or beside the checkout; None without them."""
    folder = os.environ.get("CINNABAR_DATA")
    return programs.collected(Path(folder) if folder else checkout().parent / "shared" / "data")


async def measure(scale: float) -> dict[str, list[float]]:
    """Grades ``scale`` of the programs, spread over all of them; of the sample, all."""
    found = collected()
    source = found or programs.sample()
    every = max(1, round(1 / min(1.0, scale))) if found else 1
    chosen = source.programs[::every]
    async with choose() as sandbox:
        grader = CodeGrader(toolchains(sandbox.python)[Language.PYTHON], sandbox)
        print(f"  {len(chosen)} of {source.title}, in {sandbox.mechanism}")
        began = time.monotonic()
        outcomes = await graded(grader, source, chosen, at_once=2 * sandbox.slots)
        seconds = time.monotonic() - began
    print_table(outcomes)
    rate = {RATE: [len(outcomes) / seconds]}
    if found is None:
        return rate
    agreed = sum(outcome.correct == outcome.passed for outcome in outcomes)
    return {AGREEMENT: [100 * agreed / len(outcomes)], **rate}


async def graded(
    grader: CodeGrader, source: Programs, chosen: Sequence[Program], *, at_once: int
) -> list[Outcome]:
    """Grades programs, so many at once. RuntimeError when one cannot be graded."""
    items = {name: compile_item(_hidden(item)) for name, item in source.items.items()}
    waiting = list(reversed(list(enumerate(chosen))))
    outcomes: dict[int, Outcome] = {}

    async def work() -> None:
        while waiting:
            number, program = waiting.pop()
            item = items[program.task]
            assert isinstance(item, CodeItem)
            task = Task(LeaseToken(str(number)), grader.queue, item, program.source)
            found = await _graded(grader, task)
            outcomes[number] = Outcome(program.correct, found.score == found.max_score)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return [outcomes[number] for number in range(len(chosen))]


def _hidden(item: Item) -> Item:
    """The item with all tests hidden, so that they are alike: each has a process of its own."""
    copy = Item()
    copy.CopyFrom(item)
    for test in copy.code.tests:
        test.hidden = True
    return copy


async def _graded(grader: CodeGrader, task: Task) -> Graded:
    for attempt in range(_ATTEMPTS):
        try:
            found = await grader.grade(task, lambda progress: None)
        except Ungradable as error:
            print(f"  attempt {attempt + 1}: {error.message}")
        else:
            if isinstance(found, Graded):
                return found
    raise RuntimeError(f"program {task.token} was not graded")


def print_table(outcomes: Sequence[Outcome]) -> None:
    """The confusion of course and tests."""
    counts = Counter(outcomes)
    for correct in (True, False):
        passed, failed = counts[Outcome(correct, True)], counts[Outcome(correct, False)]
        word = "correct" if correct else "wrong"
        print(f"  course says {word}: {passed} pass all tests, {failed} do not")
