"""The grader under examination, as a process that is started, stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


class Program:
    """One process at a time, in a group of its own, so that what it starts ends with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """What it says goes to the end of ``log``."""
        self._command = command
        self._environment = environment
        self._log = log
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """OSError when there is no such program."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=os.environ | self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @contextmanager
    def paused(self) -> Generator[None]:
        """It does nothing for the length of a block, shorter than a lease; it may be killed there."""
        process = self._process
        if process is None:
            raise RuntimeError("the program was not started")
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)

    async def stop(self, seconds: float) -> int | None:
        """Asks it to leave; the exit code, or None when it had to be killed after ``seconds``."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                return await process.wait()
        except TimeoutError:
            return None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Ends it, and all that it started, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
