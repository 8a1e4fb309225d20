"""The grader as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from cinnabar_local.ports import Ports
from cinnabar_local.probes import grpc_serving
from cinnabar_local.process import Process, ProcessSpec


@asynccontextmanager
async def grader_process(
    scheduler_target: str, folder: Path, name: str = "grader-0"
) -> AsyncGenerator[Process]:
    """Started and healthy; stopped on exit. Its log is ``{name}.log`` in ``folder``."""
    target = f"127.0.0.1:{Ports().of(name)}"
    spec = ProcessSpec(
        name=name,
        command=(sys.executable, "-m", "cinnabar_grader"),
        env={"GRADER_LISTEN": target, "GRADER_SCHEDULER_TARGET": scheduler_target},
        ready=partial(grpc_serving, target),
        ready_seconds=20,
        stop_seconds=15,
    )
    process = Process(spec, log_path=folder / f"{name}.log")
    await process.start()
    try:
        yield process
    finally:
        await process.stop()
