"""Worker processes: real ones, ended in every way that a process can end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import psutil
import pytest

from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Failed, FailureCode, Graded, LeaseToken, Outcome, Task
from cinnabar_grader.kinds import Kind
from cinnabar_grader.processes.process_pool import ProcessPool
from cinnabar_grader.processes.worker_process import Bounds, ProcessEnded, State
from tests.support.grader_kinds import CRASHING, CRASHING_KIND, NEVER_KIND
from tests.support.waiting import until

CONFIG = GraderConfig(scheduler_target="127.0.0.1:9")
BOUNDS = Bounds(silence_seconds=3.0, batch_seconds=30.0)


def tasks(*answers: str) -> list[Task]:
    return [
        Task(LeaseToken(str(number)), CRASHING, None, answer, item_key="r1/i")
        for number, answer in enumerate(answers)
    ]


@asynccontextmanager
async def pool(
    size: int = 1, *, bounds: Bounds = BOUNDS, kind: Kind = CRASHING_KIND
) -> AsyncGenerator[ProcessPool]:
    it = ProcessPool(CONFIG, kind, size, bounds=bounds, jitter=lambda: 0.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(it.run())
        try:
            yield it
        finally:
            pids = [process.pid for process in it.processes if process.pid is not None]
            running.cancel()
            await asyncio.wait((running,), timeout=10)
            assert running.done()
            assert not any(psutil.pid_exists(pid) for pid in pids)


async def pid_of(it: ProcessPool) -> int:
    """Of a process that works."""
    return graded(await it.grade(CRASHING, tasks("x")))[0]


def graded(outcomes: list[Outcome]) -> tuple[int, int]:
    """Process and size of a batch that was graded."""
    first = outcomes[0]
    assert isinstance(first, Graded)
    pid, size = first.feedback.split()
    return int(pid), int(size)


async def test_a_process_that_is_killed_fails_its_batch_and_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pool() as it:
        first = await pid_of(it)
        assert first != os.getpid()
        assert graded(await it.grade(CRASHING, tasks("x", "y", "z"))) == (first, 3)
        with pytest.raises(ProcessEnded, match="SIGKILL"):
            await it.grade(CRASHING, tasks("x", "die"))
        assert await pid_of(it) != first
        names = [process.name for process in it.processes]
        assert names == ["crashing-2"]
        await until(lambda: it.processes[0].checks == {"crash": True}, "checks are asked there")
        await it.check("crash")()
        with pytest.raises(ConnectionError):
            await it.check("model")()
    assert "process ended" in caplog.text


@pytest.mark.parametrize(
    ("answer", "bounds", "words"),
    [
        ("hang", replace(BOUNDS, batch_seconds=0.5), "took too long"),
        ("freeze", replace(BOUNDS, silence_seconds=1.2), "stood still"),
    ],
)
async def test_a_stuck_process_is_killed(answer: str, bounds: Bounds, words: str) -> None:
    async with pool(bounds=bounds) as it:
        first = await pid_of(it)
        with pytest.raises(ProcessEnded, match=words):
            await it.grade(CRASHING, tasks(answer))
        assert not psutil.pid_exists(first)
        assert await pid_of(it) != first


@pytest.mark.parametrize(
    ("answer", "bounds"),
    [("grow", replace(BOUNDS, memory_bytes=96 * 1024 * 1024)), ("x", replace(BOUNDS, batches=2))],
)
async def test_a_worn_process_is_replaced_when_its_successor_is_ready(answer: str, bounds: Bounds) -> None:
    async with pool(bounds=bounds) as it:
        first = await pid_of(it)
        assert graded(await it.grade(CRASHING, tasks(answer)))[0] == first
        seen: set[int] = set()

        async def replaced() -> bool:
            pid = await pid_of(it)  # never without a process
            seen.add(pid)
            return pid != first and not psutil.pid_exists(first)

        await until(replaced, "another process works")
        assert first in seen


async def test_shrinking_ends_no_process_over_its_batch() -> None:
    async with pool(2) as it:
        await until(lambda: [one.state for one in it.processes] == [State.READY] * 2, "both are ready")
        working = [asyncio.ensure_future(it.grade(CRASHING, tasks("hang"))) for _ in range(2)]
        await until(lambda: it.busy == 2, "both work")
        waiting = asyncio.ensure_future(it.grade(CRASHING, tasks("x")))
        it.resize(1)
        await until(lambda: it.processes[1].state is State.RETIRING, "the newer one retires")
        assert it.busy == 2
        for process in it.processes:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
        assert all(
            isinstance(one, ProcessEnded) for one in await asyncio.gather(*working, return_exceptions=True)
        )
        assert isinstance((await waiting)[0], Graded)
        assert [process.name for process in it.processes] == ["crashing-3"]


async def test_batches_go_to_all_processes_and_only_to_idle_ones() -> None:
    async with pool(2) as it:
        await until(lambda: [one.state for one in it.processes] == [State.READY] * 2, "both are ready")
        held = asyncio.ensure_future(it.grade(CRASHING, tasks("hang")))
        await until(lambda: it.busy == 1, "one works")
        others = {graded(await it.grade(CRASHING, tasks("x")))[0] for _ in range(5)}
        assert len(others) == 1
        held.cancel()  # nobody waits for it any more, but it is busy all the same
        await asyncio.wait((held,), timeout=5)
        assert (it.busy, await pid_of(it) in others) == (1, True)


async def test_what_a_grader_raises_or_cannot_say_harms_nobody_else() -> None:
    async with pool() as it:
        outcomes = await it.grade(CRASHING, tasks("x", "break"))
        assert [type(outcome) for outcome in outcomes] == [Graded, Failed]
        (odd,) = await it.grade(CRASHING, tasks("odd"))
        assert isinstance(odd, Failed)
        assert (odd.code, "broke" in odd.message) == (FailureCode.INTERNAL, True)
        await pid_of(it)
        assert len(it.processes) == 1


async def test_a_kind_that_cannot_be_opened_is_tried_again() -> None:
    async with pool(kind=NEVER_KIND) as it:
        await until(lambda: bool(it.processes) and it.processes[-1].name >= "never-3", "the third one")
        assert not it.graders


async def test_whoever_gives_up_waiting_leaves_the_process_to_others() -> None:
    async with pool() as it:
        early = asyncio.ensure_future(it.acquire())
        await asyncio.sleep(0)
        early.cancel()
        process = await it.acquire()
        late = asyncio.ensure_future(it.acquire())
        await asyncio.sleep(0)
        it.release(process)
        late.cancel()  # after it was given the process
        await asyncio.wait((early, late), timeout=5)
        await pid_of(it)
