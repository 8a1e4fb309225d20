"""A sandbox without boxes, for tests: its programs are functions that are trusted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from cinnabar_grader.sandbox.runs import Ending, Limits, Run, check_name, check_run

DEFAULT_LIMITS = Limits()
_NOT_FOUND = 127


@dataclass(slots=True)
class Call:
    """What a program gets. It may change ``files``, and does not see what others change."""

    argv: Sequence[str]
    stdin: bytes
    environment: Mapping[str, str]
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Finish:
    """How a program ends: with an exit code, or by a signal when that is not 0."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    signal: int = 0


Program: TypeAlias = "Callable[[Call], Awaitable[Finish]]"


class MemorySandbox:
    """A `Sandbox` of functions by name. Of the limits it knows wall clock, output and size of files."""

    mechanism = "memory"
    strong = False
    python = "python"

    def __init__(self, programs: Mapping[str, Program], *, slots: int = 2) -> None:
        self.slots = slots
        self.programs = programs
        self.room = asyncio.Semaphore(slots)

    @property
    def missing(self) -> Sequence[str]:
        return ("every wall",)

    @asynccontextmanager
    async def folder(self, files: Mapping[str, bytes]) -> AsyncGenerator[MemoryFolder]:
        """See `Sandbox.folder`."""
        for name in files:
            check_name(name)
        yield MemoryFolder(self, dict(files))


class MemoryFolder:
    """A `Folder` of a `MemorySandbox`."""

    def __init__(self, sandbox: MemorySandbox, files: dict[str, bytes]) -> None:
        self._sandbox = sandbox
        self._files = files

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limits: Limits = DEFAULT_LIMITS,
        keep: bool = False,
        collect: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """See `Folder.run`."""
        check_run(argv, collect, environment or {})
        program = self._sandbox.programs.get(argv[0])
        if program is None:
            return Run(ending=Ending.EXITED, exit_code=_NOT_FOUND)
        call = Call(argv, stdin, environment or {}, dict(self._files))
        async with self._sandbox.room:
            began = time.monotonic()
            try:
                async with asyncio.timeout(limits.wall_seconds):
                    finish = await program(call)
            except TimeoutError:
                return Run(ending=Ending.TIME_LIMIT, wall_seconds=time.monotonic() - began)
        ending = Ending.SIGNALED if finish.signal else Ending.EXITED
        if len(finish.stdout) + len(finish.stderr) > limits.output_bytes:
            ending = Ending.OUTPUT_LIMIT
        if keep and ending is Ending.EXITED and not finish.exit_code:
            self._files = call.files
        stdout = finish.stdout[: limits.output_bytes]
        return Run(
            ending=ending,
            exit_code=finish.exit_code if ending is Ending.EXITED else 0,
            signal=finish.signal if ending is Ending.SIGNALED else 0,
            stdout=stdout,
            stderr=finish.stderr[: limits.output_bytes - len(stdout)],
            wall_seconds=time.monotonic() - began,
            files={
                name: call.files[name]
                for name in collect
                if name in call.files and len(call.files[name]) <= limits.file_bytes
            },
        )
