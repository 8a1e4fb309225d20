"""One worker process, from its start to its end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from cinnabar_grader.config import GraderConfig
from cinnabar_grader.graders import Outcome, Task
from cinnabar_grader.kinds import Kind
from cinnabar_grader.processes import frames

log = logging.getLogger(__name__)

WATCH_STEPS = 20
"""Silence and work are measured in so many steps to their bound, by this process being awake: one that was
stopped does not take its own sleep for that of its children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a worker process may do before it is replaced."""

    opening_seconds: float = 120.0
    """How long it may take until it is ready."""
    silence_seconds: float = 15.0
    """How long its event loop may say nothing; then it is killed."""
    batch_seconds: float = 60.0
    """How long it may work on one batch; then it is killed."""
    memory_bytes: int = 1536 * 1024 * 1024
    """How much memory it may have; with more it is replaced, after its batch."""
    batches: int = 100_000
    """How many batches it may work on; then it is replaced."""


RETIRED = "retired"
"""How a process ends that was not needed any more."""


class State(Enum):
    """How far a worker process is."""

    STARTING = 1
    READY = 2
    RETIRING = 3
    """It finishes its batch and ends."""
    ENDED = 4


class ProcessEnded(Exception):
    """The process ended before it had answered. The message says how."""


class WorkerProcess:
    """A process that grades batches, one at a time. ``changed`` is called whenever its properties change."""

    def __init__(
        self, name: str, config: GraderConfig, kind: Kind, bounds: Bounds, changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.state = State.STARTING
        self.taken = False
        """Whether somebody was given it, and has not given it back."""
        self.graders: Mapping[str, frames.GraderFacts] = {}
        self.checks: Mapping[str, bool] = {}
        self.batches = 0
        self.memory_bytes = 0
        self.ending = ""
        """How it ended, for the log; empty while it lives."""
        self._opening = frames.Open(config, kind)
        self._bounds = bounds
        self._changed = changed
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Sequence[Outcome]]] = {}
        self._silence = 0.0
        self._working = 0.0
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None before it has one."""
        return None if self._process is None else self._process.pid

    @property
    def busy(self) -> bool:
        """Whether it works on a batch, also on one that nobody waits for any more."""
        return bool(self._waiting)

    @property
    def worn(self) -> str:
        """Why it should be replaced; empty while it need not."""
        if self.memory_bytes > self._bounds.memory_bytes:
            return "memory"
        return "batches" if self.batches >= self._bounds.batches else ""

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes of a batch; ProcessEnded. Only when it is ready and not busy.

        Whoever is cancelled while it waits leaves the process busy, until it has answered.
        """
        writer = self._writer
        if self.state is not State.READY or writer is None or self._waiting:
            raise ProcessEnded("the worker process was not ready")
        number = next(self._numbers)
        frames.write(writer, frames.Batch(number, queue, tasks))
        answer: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._working = 0.0
        self.batches += 1
        self._changed()
        return list(await asyncio.shield(answer))

    def retire(self) -> None:
        """Ends it when it has finished its batch."""
        if self.state in (State.STARTING, State.READY):
            self.state = State.RETIRING
            self._close_when_idle()
            self._changed()

    def kill(self, reason: str) -> None:
        """Ends it now."""
        if self.state is not State.ENDED and self._process is not None and self._process.returncode is None:
            self.ending = self.ending or reason
            self._process.kill()

    async def run(self) -> None:
        """From its start to its end; killed when this is cancelled."""
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"{__package__}.child", str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._writer = writer
        try:
            frames.write(writer, self._opening)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(), name=f"watch-{self.name}")
                while (message := await frames.read(reader)) is not None:
                    self._handle(message)
                await process.wait()
                watch.cancel()
        finally:
            if process.returncode is None:
                process.kill()
            writer.close()
            await process.wait()
            self._end(process.returncode)

    def _handle(self, message: frames.Message) -> None:
        self._silence = 0.0
        match message:
            case frames.Ready(graders):
                self.graders = graders
                if self.state is State.STARTING:
                    self.state = State.READY
            case frames.Beat(memory_bytes, checks):
                self.memory_bytes = memory_bytes
                self.checks = checks
            case frames.Outcomes(number, outcomes):
                answer = self._waiting.pop(number, None)
                if answer is not None and not answer.done():
                    answer.set_result(outcomes)
                self._close_when_idle()
            case _:
                log.warning("message not understood", extra={"worker_process": self.name})
        self._changed()

    def _close_when_idle(self) -> None:
        if self.state is State.RETIRING and not self._waiting and self._writer is not None:
            self._writer.close()

    async def _watch(self) -> None:
        """Kills the process when it says nothing, opens or works for too long."""
        step = min(self._bounds.silence_seconds, self._bounds.batch_seconds) / WATCH_STEPS
        opening = 0.0
        while True:
            await asyncio.sleep(step)
            self._silence += step
            self._working = self._working + step if self._waiting else 0.0
            opening = opening + step if self.state is State.STARTING else 0.0
            if self._silence > self._bounds.silence_seconds:
                self.kill("its event loop stood still")
            elif self._working > self._bounds.batch_seconds:
                self.kill("its batch took too long")
            elif opening > self._bounds.opening_seconds:
                self.kill("it took too long to open")

    def _end(self, code: int | None) -> None:
        retired = self.state is State.RETIRING
        self.state = State.ENDED
        if not self.ending:
            self.ending = RETIRED if retired else _words(code)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ProcessEnded(self.ending))
                answer.exception()  # perhaps nobody waits for it
        self._waiting.clear()
        self._changed()


def _words(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with {code}"
