"""One coroutine per task, as many at once as there are slots; one that goes wrong harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from cinnabar_grader.graders import (
    ANSWER,
    CriterionScore,
    Failed,
    FailureCode,
    Graded,
    LeaseToken,
    Outcome,
    Progress,
    Provenance,
    Released,
    Task,
    TestResult,
    TestVerdict,
    Ungradable,
)
from cinnabar_grader.pipeline import Desk
from cinnabar_grader.slot_lane import SlotLane
from cinnabar_grader.slots import Slots
from cinnabar_grader.worker import Report, WorkerSession
from tests.support.waiting import until

QUEUE = "code-python"


class Held:
    """Grades a task when told to, or raises what its answer names."""

    name = "held"
    version = "1"
    queue = QUEUE

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.stopped: list[str] = []
        self.errors: dict[str, BaseException] = {}

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        self.running[task.token] = asyncio.Event()
        try:
            await self.running[task.token].wait()
        except asyncio.CancelledError:
            self.stopped.append(task.token)
            raise
        if task.token in self.errors:
            raise self.errors[task.token]
        report(Progress(task.token, [TestResult("t1", TestVerdict.ACCEPTED, 1, 1)]))
        return Graded(
            task.token, 1, 1, [CriterionScore(ANSWER, 1, 1)], "", Provenance(self.name, self.version)
        )

    def go(self, *tokens: str) -> None:
        for token in tokens:
            self.running[token].set()


class Room:
    """A lane, the session that it works for, and its grader."""

    def __init__(self, slots: Slots) -> None:
        self.session = WorkerSession({QUEUE: 100})
        self.session.welcomed(max_credits=0)
        self.grader = Held()
        self.slots = slots
        self.outcomes: dict[str, Outcome] = {}
        self.lane = SlotLane(self.grader, Desk(work=self.session, reported=self.reported), slots)

    def reported(self) -> None:
        for message in self.session.take():
            if isinstance(message, Report):
                self.outcomes.update((one.token, one) for one in message.outcomes)

    def put(self, *tokens: str) -> list[Task]:
        tasks = [Task(LeaseToken(token), QUEUE, None, "x") for token in tokens]
        assert self.session.leased(tasks)
        self.lane.wake()
        return tasks

    async def begun(self, *tokens: str) -> None:
        await until(lambda: set(tokens) <= self.grader.running.keys(), f"{tokens} run")

    async def done(self, *tokens: str) -> None:
        await until(lambda: set(tokens) <= self.outcomes.keys(), f"outcomes of {tokens}")


@asynccontextmanager
async def room(slots: Slots) -> AsyncGenerator[Room]:
    it = Room(slots)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(it.lane.run())
        yield it
        running.cancel()
    assert slots.busy == 0


async def test_as_many_run_as_there_are_slots() -> None:
    slots = Slots(2)
    async with room(slots) as it:
        it.put("a", "b", "c", "d", "e")
        await it.begun("a", "b")
        assert (slots.busy, list(it.grader.running)) == (2, ["a", "b"])
        it.grader.go("a")
        await it.begun("c")
        slots.resize(4)
        await it.begun("d", "e")
        slots.resize(1)
        it.grader.go("b", "c", "d")
        await it.done("a", "b", "c", "d")
        it.put("f", "g")
        it.grader.go("e")
        await it.begun("f")
        assert (slots.busy, "g" in it.grader.running) == (1, False)
        it.grader.go("f")
        await it.begun("g")
        it.grader.go("g")
        await it.done("e", "f", "g")


async def test_slots_are_shared_by_the_lanes_of_several_streams() -> None:
    slots = Slots(1)
    async with room(slots) as one, room(slots) as two:
        one.put("a", "b")
        await one.begun("a")
        two.put("c")
        one.grader.go("a")
        await until(lambda: bool(two.grader.running or len(one.grader.running) == 2), "the next one begins")
        assert slots.busy == 1
        for it, token in ((one, "b"), (two, "c")):
            await it.begun(token)
            it.grader.go(token)
            await it.done(token)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionRefusedError("10.0.0.1"), FailureCode.UNAVAILABLE),
        (TimeoutError(), FailureCode.UNAVAILABLE),
        (Ungradable(FailureCode.FAILED_PRECONDITION, "no such test"), FailureCode.FAILED_PRECONDITION),
        (KeyError("secret"), FailureCode.INTERNAL),
        (asyncio.CancelledError(), FailureCode.INTERNAL),
    ],
)
async def test_what_a_grader_raises_is_of_its_task_alone(error: BaseException, code: FailureCode) -> None:
    async with room(Slots(3)) as it:
        it.grader.errors["bad"] = error
        it.put("a", "bad", "b")
        await it.begun("a", "bad", "b")
        it.grader.go("bad")
        await it.done("bad")
        it.grader.go("a", "b")
        await it.done("a", "b")
    failure = it.outcomes["bad"]
    assert isinstance(failure, Failed)
    assert failure.code is code
    assert "secret" not in failure.message
    assert isinstance(it.outcomes["a"], Graded)


async def test_a_cancelled_task_is_stopped_and_gives_its_slot_to_the_next() -> None:
    async with room(Slots(1)) as it:
        it.put("a", "b", "c")
        await it.begun("a")
        for token in ("b", "a"):  # one that waits, one that runs
            it.session.cancelled([LeaseToken(token)])
            it.lane.cancel([LeaseToken(token)])
        await it.begun("c")
        assert it.grader.stopped == ["a"]
        it.grader.go("c")
        await it.done("c")
    assert list(it.outcomes) == ["c"]


async def test_what_runs_is_handed_back_when_it_must_end() -> None:
    async with room(Slots(2)) as it:
        it.put("a", "b", "c")
        await it.begun("a", "b")
        it.session.hand_back()
        it.lane.cancel(it.session.tokens)
        await until(lambda: it.grader.stopped == ["a", "b"], "both are stopped")
        it.reported()
    assert {token: type(outcome) for token, outcome in it.outcomes.items()} == dict.fromkeys("abc", Released)


async def test_a_place_that_was_given_to_somebody_who_left_goes_to_the_next() -> None:
    slots = Slots(1)
    await slots.acquire()
    first, second = asyncio.ensure_future(slots.acquire()), asyncio.ensure_future(slots.acquire())
    await asyncio.sleep(0)
    slots.release()
    first.cancel()
    await asyncio.wait((first, second), timeout=10)
    assert (first.cancelled(), second.done(), slots.busy) == (True, True, 1)
    third = asyncio.ensure_future(slots.acquire())
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.wait((third,), timeout=10)
    slots.release()
    assert slots.busy == 0
