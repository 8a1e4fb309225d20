"""Watches over one box until nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cinnabar_grader.sandbox.keeper import processes
from cinnabar_grader.sandbox.keeper.cgroups import Group
from cinnabar_grader.sandbox.keeper.child import Child, Status
from cinnabar_grader.sandbox.runs import Ending, Limits

TICK_SECONDS = 0.05
_PATIENCE = 20
"""Ticks that a killed box has to fall by itself."""
_CHUNK = 1 << 16
_OUT_OF_MEMORY = (
    b"MemoryError",
    b"std::bad_alloc",
    b"OutOfMemoryError",
    b"out of memory",
    b"Cannot allocate",
)
"""What runtimes say on stderr when they get no more; asked only where no cgroup can tell."""
_ENDINGS_OF_SIGNALS: dict[int, Ending] = {
    signal.SIGSYS: Ending.FORBIDDEN,
    signal.SIGXCPU: Ending.TIME_LIMIT,
    signal.SIGXFSZ: Ending.OUTPUT_LIMIT,
}


@dataclass(slots=True)
class Seen:
    """What came of a box."""

    ending: Ending = Ending.FAILED
    status: Status = field(default_factory=lambda: Status(0))
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    reason: str = ""


@dataclass(slots=True)
class Watch:
    """One box from its start to the end of its last process."""

    child: Child
    limits: Limits
    group: Group | None
    stdout: int
    stderr: int
    _verdict: Ending | None = None
    """Why we killed it; None while we have not."""
    _room: int = 0
    _output: dict[int, bytearray] = field(default_factory=dict[int, bytearray])
    _errors: bytearray = field(default_factory=bytearray)
    _used: processes.Usage = field(default_factory=processes.Usage)

    async def over(self) -> Seen:
        """Waits for the end, sees to it that it comes, and says what it was. However this is left, every
        process of the box is gone."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        self._room = self.limits.output_bytes
        exited = asyncio.Event()
        exit_file = os.pidfd_open(self.child.pid)
        watched = [exit_file]

        def watch(descriptor: int, call: Callable[[], bool]) -> None:
            watched.append(descriptor)

            def called() -> None:
                if not call():
                    loop.remove_reader(descriptor)

            loop.add_reader(descriptor, called)

        loop.add_reader(exit_file, exited.set)
        for descriptor in (self.stdout, self.stderr):
            self._output[descriptor] = bytearray()
            os.set_blocking(descriptor, False)
            loop.add_reader(descriptor, self._pump, descriptor)
            watched.append(descriptor)
        self.child.watched(watch)
        try:
            await self._until(exited, began)
        finally:
            try:
                wait_status, usage = await self._end(exited)
            finally:
                for descriptor in watched:
                    loop.remove_reader(descriptor)
                os.close(exit_file)
        wall = time.monotonic() - began
        self._drain()
        return self._judge(wait_status, usage, wall)

    async def _until(self, exited: asyncio.Event, began: float) -> None:
        deadline = began + self.limits.wall_seconds
        while not exited.is_set() and self._verdict is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self._condemn(Ending.TIME_LIMIT)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, TICK_SECONDS)):
                    await exited.wait()
                    return
            self._look()

    def _look(self) -> None:
        if self.group is not None:
            if self.group.out_of_memory():
                self._condemn(Ending.MEMORY_LIMIT)
            elif self.group.cpu_seconds() > self.limits.cpu_seconds:
                self._condemn(Ending.TIME_LIMIT)
            return
        self._used = self._used.most(processes.usage(self.child.pid, self.limits.memory_bytes))
        if self._used.memory_bytes > self.limits.memory_bytes:
            self._condemn(Ending.MEMORY_LIMIT)
        elif self._used.cpu_seconds > self.limits.cpu_seconds:
            self._condemn(Ending.TIME_LIMIT)

    def _condemn(self, verdict: Ending) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._kill()

    def _kill(self) -> None:
        self.child.kill()

    async def _end(self, exited: asyncio.Event) -> tuple[int, tuple[float, int]]:
        """Kills what is left and collects the child, shielded from cancellation by doing it again."""
        cancelled: asyncio.CancelledError | None = None
        attempts = 0
        while not exited.is_set():
            self._kill()
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await exited.wait()
            except TimeoutError:
                attempts += 1
                if self.group is not None and attempts > _PATIENCE:  # whom the mechanism did not reach
                    self.group.kill()
            except asyncio.CancelledError as error:
                cancelled = error
        self.child.sweep()
        if self.group is not None:
            self.group.kill()
        _, wait_status, usage = os.wait4(self.child.pid, 0)  # noqa: ASYNC222 - it has exited
        if cancelled is not None:
            raise cancelled
        return wait_status, (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def _pump(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
            return
        self._output[descriptor] += data[: self._room]
        self._room -= len(data)
        if self._room < 0:
            self._room = 0
            self._condemn(Ending.OUTPUT_LIMIT)

    def _drain(self) -> None:
        """Takes what was written and not read yet; every writer is gone."""
        for descriptor in (self.stdout, self.stderr):
            while self._room:
                try:
                    data = os.read(descriptor, _CHUNK)
                except BlockingIOError:
                    break
                if not data:
                    break
                self._output[descriptor] += data[: self._room]
                self._room -= len(data)
                if self._room < 0:
                    self._room = 0
                    self._verdict = self._verdict or Ending.OUTPUT_LIMIT
        os.set_blocking(self.child.errors, False)
        with suppress(BlockingIOError):
            self._errors += os.read(self.child.errors, 4096)

    def _judge(self, wait_status: int, usage: tuple[float, int], wall: float) -> Seen:
        cpu, memory = usage
        if memory <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024:
            memory = 0  # that of the keeper's own copy, before the program took its place
        seen = Seen(
            stdout=bytes(self._output[self.stdout]),
            stderr=bytes(self._output[self.stderr]),
            cpu_seconds=max(cpu, self._used.cpu_seconds),
            wall_seconds=wall,
            memory_bytes=max(memory, self._used.memory_bytes),
        )
        starved = False
        if self.group is not None:
            seen.cpu_seconds = self.group.cpu_seconds()
            seen.memory_bytes = self.group.memory_bytes() or memory
            starved = self.group.out_of_memory()
        if self._verdict is not None:
            seen.ending = self._verdict
            if self._verdict is Ending.TIME_LIMIT and starved:
                seen.ending = Ending.MEMORY_LIMIT
            return seen
        if self._errors:
            seen.reason = self._errors.decode("utf-8", "replace")
            return seen
        try:
            seen.status = self.child.status(os.waitstatus_to_exitcode(wait_status), seen.stderr)
        except RuntimeError as error:
            if starved:  # not even the beginning had room
                seen.ending = Ending.MEMORY_LIMIT
            else:
                seen.reason = f"{error}: {seen.stderr[:500].decode('utf-8', 'replace')}"
                seen.stderr = b""
            return seen
        seen.ending = self._ending(seen, starved)
        return seen

    def _ending(self, seen: Seen, starved: bool) -> Ending:
        failed = seen.status.signal or seen.status.exit_code
        if starved and failed:
            return Ending.MEMORY_LIMIT
        if self.group is None and failed and any(word in seen.stderr[-4096:] for word in _OUT_OF_MEMORY):
            return Ending.MEMORY_LIMIT
        if seen.status.signal == signal.SIGKILL and seen.cpu_seconds > self.limits.cpu_seconds:
            return Ending.TIME_LIMIT
        if seen.status.signal:
            return _ENDINGS_OF_SIGNALS.get(seen.status.signal, Ending.SIGNALED)
        return Ending.EXITED
