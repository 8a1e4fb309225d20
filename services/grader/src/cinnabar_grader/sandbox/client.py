"""The grader's side of the keeper."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from cinnabar_grader.sandbox import frames
from cinnabar_grader.sandbox.keeper.settings import Settings
from cinnabar_grader.sandbox.runs import Ending, Limits, Run, check_name, check_run

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_CANCEL_SECONDS = 10.0
DEFAULT_LIMITS = Limits()


class Broken(Exception):
    """A keeper that did not come up; the message says why."""


class Connection:
    """A keeper under way."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        strong: bool,
        missing: Sequence[str],
    ) -> None:
        self.strong = strong
        self.missing = tuple(missing)
        self.process = process
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Run]] = {}
        self._count = 0
        self.closed = False
        self._listener = asyncio.create_task(self._listen(), name="sandbox-keeper")

    @classmethod
    async def opened(cls, settings: Settings) -> Connection:
        """Starts a keeper. Broken when its mechanism does not work here."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-m", "cinnabar_grader.sandbox.keeper", str(theirs.fileno()), settings.dumped()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            async with asyncio.timeout(_START_SECONDS):
                hello, _ = await frames.read(reader)
            if "error" in hello:
                raise Broken(hello["error"])
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            await _stopped(process, writer)
            raise Broken("the keeper did not start") from error
        except BaseException:
            await _stopped(process, writer)
            raise
        return cls(process, reader, writer, hello["strong"], hello["missing"])

    def send(self, head: frames.Head, blobs: Sequence[bytes] = ()) -> None:
        """An order that has no answer."""
        if not self.closed:
            self._writer.write(frames.encoded(head, blobs))

    async def run(self, head: frames.Head, stdin: bytes) -> Run:
        """An order to run something. Cancelled, it returns when every process of it is gone."""
        if self.closed:
            return _lost()
        self._count += 1
        number = self._count
        answer = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.send({**head, "order": "run", "run": number}, (stdin,))
        try:
            with suppress(ConnectionError):
                await self._writer.drain()
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            self.send({"order": "cancel", "run": number})
            await asyncio.wait([answer], timeout=_CANCEL_SECONDS)
            raise
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Stops the keeper and with it everything that runs."""
        self.closed = True
        await _stopped(self.process, self._writer)
        await self._listener

    async def _listen(self) -> None:
        try:
            while True:
                head, blobs = await frames.read(self._reader)
                answer = self._waiting.get(head["run"])
                if answer is not None and not answer.done():
                    answer.set_result(_run(head, blobs))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result(_lost())


class KeptSandbox:
    """A `Sandbox` by a keeper; one that died is replaced at the next folder."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._replacing = asyncio.Lock()
        self._mending: asyncio.Task[Connection] | None = None
        self._folders = 0
        self.mechanism = settings.mechanism
        self.slots = settings.slots
        self.python = settings.python

    @property
    def strong(self) -> bool:
        return self._connection.strong

    @property
    def missing(self) -> Sequence[str]:
        return self._connection.missing

    @property
    def keeper_pid(self) -> int:
        """Process id of the keeper."""
        return self._connection.process.pid

    async def check(self) -> None:
        """For health: ConnectionError when runs are not possible now."""
        if not self._connection.closed:
            return
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._connected(), name="sandbox-mending")
        await asyncio.shield(self._mending)  # goes on when whoever asks has no more patience

    @asynccontextmanager
    async def folder(self, files: Mapping[str, bytes]) -> AsyncGenerator[KeptFolder]:
        """See `Sandbox.folder`."""
        for name in files:
            check_name(name)
        connection = await self._connected()
        self._folders += 1
        name = str(self._folders)
        connection.send({"order": "open", "folder": name, "names": list(files)}, list(files.values()))
        try:
            yield KeptFolder(connection, name, self._settings)
        finally:
            connection.send({"order": "close", "folder": name})

    async def close(self) -> None:
        """Stops everything."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.wait([self._mending])
        await self._connection.close()

    async def _connected(self) -> Connection:
        async with self._replacing:
            if self._connection.closed:
                await self._connection.close()
                try:
                    self._connection = await Connection.opened(self._settings)
                except Broken as error:
                    raise ConnectionError(f"the sandbox is away: {error}") from error
            return self._connection


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A `Folder` that a keeper keeps."""

    connection: Connection
    name: str
    settings: Settings

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
        given = environment or {}
        check_run(argv, collect, given)
        head: dict[str, Any] = {
            "folder": self.name,
            "argv": list(argv),
            "environment": dict(given),
            "limits": asdict(limits),
            "keep": keep,
            "collect": list(collect),
        }
        return await self.connection.run(head, stdin)


def _run(head: frames.Head, blobs: list[bytes]) -> Run:
    stdout, stderr, *collected = blobs
    return Run(
        ending=Ending(head["ending"]),
        exit_code=head["exit_code"],
        signal=head["signal"],
        stdout=stdout,
        stderr=stderr,
        cpu_seconds=head["cpu_seconds"],
        wall_seconds=head["wall_seconds"],
        memory_bytes=head["memory_bytes"],
        files=dict(zip(head["names"], collected, strict=True)),
        reason=head["reason"],
    )


def _lost() -> Run:
    return Run(ending=Ending.FAILED, reason="the keeper of the sandbox is gone")


async def _stopped(process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.kill(process.pid, 9)
        await process.wait()
