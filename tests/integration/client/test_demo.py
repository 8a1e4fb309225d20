"""The demo on the real suite, while things die."""

import asyncio
import io

import pytest
from rich.console import Console

from cinnabar_local.demo import demo, homework
from cinnabar_local.stack import Stack
from tests.support.waiting import until

KILLED = ("gateway-0", "grader-0", "scheduler-0", "storage-0", "envoy")


async def run(stack: Stack, source: homework.Homework, out: io.StringIO, *, timeout: float = 150.0) -> int:
    return await demo(stack, source, Console(file=out, width=110), timeout=timeout)


async def test_it_ends_with_everything_counted(stack: Stack) -> None:
    out = io.StringIO()
    source = homework.sample(limit=20)
    assert await run(stack, source, out) == 0, out.getvalue()
    for words in (
        "34 submissions graded",
        "4 over REST, 30 over gRPC",
        "14 programs in the sandbox, 4 of them with partial credit",
        "is what their course says too for 14 of 14",
        "A program that passes some tests",
        "wrong answer",
        "graded per second",
        "A good answer (the teacher gave",
        f"exactly one grade row for each of the {source.tasks + 50} accepted tasks",
        f"CINNABAR_ADDRESS={stack.addresses.envoy}",
    ):
        assert words in out.getvalue()


@pytest.mark.timeout(240)
async def test_everything_is_graded_although_processes_are_killed(stack: Stack) -> None:
    out = io.StringIO()
    task = asyncio.ensure_future(run(stack, homework.sample(), out))
    for name in KILLED:
        await stack.kill(name)
        await until(lambda name=name: stack.process(name).running, description=f"{name} is back")
    assert await task == 0, out.getvalue()
    assert "exactly one grade row for each of the 272 accepted tasks" in out.getvalue()


async def test_it_says_what_failed(stack: Stack) -> None:
    out = io.StringIO()
    assert await run(stack, homework.sample(), out, timeout=0.05) == 1
    assert "failed" in out.getvalue()
    assert "not everything was graded within 0.05 s" in out.getvalue()
    assert "the logs are in" in out.getvalue()
