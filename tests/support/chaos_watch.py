"""Watches the processes of a suite while it is being broken: who dies unasked, who grows, what they log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil

from cinnabar_local.stack import Stack

_LOOK_SECONDS = 0.2
_SAMPLE_EVERY = 10  # looks
_SHOWN = 800  # characters of each end of a line
MEBIBYTE = 1024 * 1024
# What the interpreter writes past the log when something was not caught.
_UNCAUGHT = ("Traceback (most recent call last)", "was never retrieved", "was never awaited")
_FAILURES = ("error", "critical")


@dataclass(slots=True)
class Watch:
    """What was seen so far.

    ``deaths``   processes that ended without having been told to, with their exit code
    ``memory``   resident bytes of each process: after its last start, and the most there were
    """

    deaths: list[str] = field(default_factory=list[str])
    first: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    most: Counter[str] = field(default_factory=Counter[str])
    last: dict[str, int] = field(default_factory=dict[str, int])


@asynccontextmanager
async def watching(stack: Stack, down: Collection[str]) -> AsyncGenerator[Watch]:
    """For the length of the block; ``down`` are at any time the processes that may be away.

    What died is started again, so that the campaign goes on.
    """
    watch = Watch()

    async def look() -> None:
        for number in range(1 << 62):
            for name in stack.names:
                status = stack.process(name)
                if name == "storage-migrate" or name in down:
                    continue
                if not status.running:
                    watch.deaths.append(f"{name} ended with {await stack.exit_code(name)}")
                    await stack.start(name)
                elif number % _SAMPLE_EVERY == 0 and status.pid is not None:
                    _weigh(watch, name, status.pid)
            await asyncio.sleep(_LOOK_SECONDS)

    looking = asyncio.create_task(look(), name="chaos watch")
    try:
        yield watch
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


def _weigh(watch: Watch, name: str, pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        size = psutil.Process(pid).memory_info().rss
        if watch.first.get(name, (0, 0))[0] != pid:
            watch.first[name] = (pid, size)
        watch.last[name] = size
        watch.most[name] = max(watch.most[name], size)


@dataclass(slots=True)
class Logs:
    """What the services wrote: lines by service, level and event, and those that should not be there.

    Outages are warnings; an error is what the author of the service did not expect.
    """

    events: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    bad: list[str] = field(default_factory=list[str])
    bytes: Counter[str] = field(default_factory=Counter[str])


def read_logs(folder: Path, services: Collection[str], *, marker: str) -> Logs:
    """Reads the logs of ``services`` (names of processes); ``marker`` is text that may be in none of them."""
    logs = Logs()
    for name in services:
        path = folder / f"{name}.log"
        logs.bytes[name] = path.stat().st_size
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                entry = _entry(line)
                where = f"{name}.log:{number}: {_shown(line.strip())}"
                if marker in line:
                    logs.bad.append(f"student text in {where}")
                if entry is None:
                    logs.bad += [f"not caught: {where}" for sign in _UNCAUGHT if sign in line]
                    continue
                level, event = str(entry.get("level", "")), str(entry.get("event", ""))
                logs.events[name.partition("-")[0], level, event] += 1
                if level in _FAILURES:
                    logs.bad.append(f"failure in {where}")
    return logs


def _shown(line: str) -> str:
    """The beginning and the end, where an exception says what it is."""
    return line if len(line) <= 2 * _SHOWN else f"{line[:_SHOWN]} … {line[-_SHOWN:]}"


def _entry(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        return cast("dict[str, Any]", json.loads(line))
    except json.JSONDecodeError:
        return None
