"""The real process: starts, works, drains on SIGTERM, and its exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.grader_items import ITEMS, homework
from tests.support.grader_process import grader_process
from tests.support.grader_scheduler import MemoryScheduler, scheduler_running
from tests.support.waiting import until


async def test_sigterm_drains_and_ends_with_0(tmp_path: Path) -> None:
    scheduler = MemoryScheduler(max_leases=50)
    async with scheduler_running(scheduler) as address, grader_process(address, tmp_path) as process:
        await scheduler.until(lambda: bool(scheduler.streams), "the worker connects")
        stream = scheduler.streams[0]
        await scheduler.until(lambda: stream.credits.get("free-text", 0) > 0, "the model is loaded", 60)
        await scheduler.put(*(homework(queue, number) for number in range(3000) for queue in ITEMS))
        await scheduler.until(lambda: len(scheduler.graded) > 200, "work is under way")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() == 0
        await scheduler.until(lambda: stream in scheduler.ended, "the stream ended")
        assert stream.half_closed
        assert 200 < len(scheduler.graded) < 12_000
        kinds = {
            outcome.WhichOneof("result") for outcomes in scheduler.results.values() for outcome in outcomes
        }
        assert kinds == {"grade", "released"}
        unfinished = sum(len(waiting) for waiting in scheduler.waiting.values())
        assert unfinished + len(scheduler.graded) == 12_000
    assert scheduler.violations == []
    log = (tmp_path / "grader-0.log").read_text()
    assert "drain gave up" not in log
    assert '"level": "error"' not in log


async def test_health_names_the_dependencies(tmp_path: Path) -> None:
    scheduler = MemoryScheduler()
    async with (
        scheduler_running(scheduler) as address,
        grader_process(address, tmp_path) as process,
        grpc.aio.insecure_channel(process.spec.env["GRADER_LISTEN"]) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        async def serving(service: str) -> bool:
            response = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            return response.status == health_pb2.HealthCheckResponse.SERVING

        assert await serving("")
        await until(lambda: serving("scheduler"), description="the scheduler is found")
        await until(lambda: serving("model"), description="the model is loaded", seconds=60)
        assert process.pid is not None
        workers = [
            child
            for child in psutil.Process(process.pid).children()
            if "cinnabar_grader.processes.child" in child.cmdline()
        ]
        assert workers
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: not any(map(is_alive, workers)), description="its worker process dies with it")


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and is not yet reaped does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_bad_configuration_ends_with_2() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cinnabar_grader",
        env={"GRADER_QUEUES": "essay"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"GRADER_SCHEDULER_TARGET is required" in errors
