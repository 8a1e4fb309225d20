"""An event loop that stands still is told, once it can be."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar_common.health import HealthBoard
from cinnabar_common.loop_watch import LoopWatch
from cinnabar_common.server import serving
from tests.support.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIMIT = 0.2


def block_by_waiting(seconds: float, student_wrote: str = "") -> None:
    threading.Event().wait(seconds)


def block_by_computing(seconds: float, student_wrote: str = "") -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("block", [block_by_waiting, block_by_computing])
async def test_a_blocked_loop_is_unhealthy_until_it_has_run_for_a_while(
    block: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(block)
    watch = LoopWatch(limit_seconds=LIMIT, hold_seconds=0.3)
    board = HealthBoard({}, watch=watch, interval_seconds=0.05)
    async with (
        serving("127.0.0.1:0", register=lambda _: None, services=(), health=board) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        overall = health_pb2.HealthCheckRequest()
        watching = stub.Watch(overall, timeout=20)
        seen = [(await anext(aiter(watching))).status]
        assert (await stub.Check(overall, timeout=5)).status == SERVING
        asked = asyncio.ensure_future(stub.Check(overall, timeout=20))
        await asyncio.sleep(0)
        block(5 * LIMIT, "the secret of a student")
        assert (await stub.Check(overall, timeout=5)).status == NOT_SERVING
        assert (await asked).status in (SERVING, NOT_SERVING)  # it may have been there before
        async for response in watching:
            seen.append(response.status)
            if len(seen) == 3:
                break
        watching.cancel()
    assert seen == [SERVING, NOT_SERVING, SERVING]
    (record,) = [one for one in caplog.records if one.message == "event loop blocked"]
    assert getattr(block, "__name__", "?") in str(vars(record)["stack"])
    assert "secret" not in str(vars(record)) + caplog.text


async def test_a_loop_that_is_busy_but_not_blocked_is_healthy() -> None:
    watch = LoopWatch(limit_seconds=0.5)
    with watch.running():
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            block_by_computing(0.05)
            await asyncio.sleep(0)
        assert not watch.blocked
    block_by_computing(0.7)
    assert not watch.blocked  # nobody watches


PROGRAM = """
import asyncio
from cinnabar_common.loop_watch import LoopWatch

async def main():
    watch = LoopWatch(limit_seconds=0.3)
    with watch.running():
        for line in ("before", "after"):
            print(line, watch.blocked, flush=True)
            await asyncio.to_thread(input)
            await asyncio.sleep(0.05)
        print("end", watch.blocked, flush=True)

asyncio.run(main())
"""


def test_a_process_that_was_stopped_does_not_blame_its_loop() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "before False\n"
        os.kill(process.pid, signal.SIGSTOP)
        block_by_waiting(0.8)
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "after False\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "end False\n"


async def test_a_check_that_hangs_or_is_cancelled_or_raises_anything_is_unhealthy() -> None:
    begun = 0
    go = asyncio.Event()

    async def stubborn() -> None:
        nonlocal begun
        begun += 1
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    async def cancelled() -> None:
        raise asyncio.CancelledError

    def at_once() -> asyncio.Future[None]:
        raise KeyError("a check that is none")

    async def fine() -> None:
        pass

    checks = {"stubborn": stubborn, "cancelled": cancelled, "at_once": at_once, "fine": fine}
    board = HealthBoard(checks, timeout_seconds=0.02)
    expected = {"stubborn": False, "cancelled": False, "at_once": False, "fine": True}
    for _ in range(3):
        verdicts = await board.run_once()
        assert {name: verdicts[name] for name in checks} == expected
    assert begun == 1
    go.set()

    async def recovered() -> bool:
        return (await board.run_once())["stubborn"]

    await until(recovered, "it is asked again")


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
