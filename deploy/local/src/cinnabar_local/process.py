"""One process: what it is, and starting, stopping, killing and pausing it."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cinnabar_local.identity import Identity
from cinnabar_local.probes import NotReady

log = logging.getLogger(__name__)

_LAUNCHER = Path(__file__).with_name("launch.py")
# Settings of ours, or of a database client, in the environment of the runner must not leak into the stack.
_PRIVATE_PREFIXES = ("GATEWAY_", "SCHEDULER_", "STORAGE_", "GRADER_", "PG")
_PROBE_SECONDS = 3.0
_PROBE_PAUSE_SECONDS = 0.03
_LOG_TAIL_LINES = 25

Step = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """The step that does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One row of the process table.

    ``ready`` raises NotReady until the process serves. ``prepare`` runs before each start, ``settle`` when
    the process became ready; both may run many times and must come to the same end. A ``one_shot`` process
    is ready when it has exited with 0. ``env`` is added to the inherited environment. One that is
    ``killed_to_stop`` is known not to end by itself in good time after the signal, and loses nothing by it.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    needs: tuple[str, ...] = ()
    prepare: Step = nothing
    ready: Step = nothing
    settle: Step = nothing
    one_shot: bool = False
    identity: Identity | None = None
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    runner_died_signal: signal.Signals = signal.SIGKILL
    ready_seconds: float = 60.0
    stop_seconds: float = 30.0
    killed_to_stop: bool = False


class StartFailed(RuntimeError):
    """A process did not become ready. The message holds the last lines of its log."""


class Process:
    """A process of the stack, running or not. Not for use by several tasks at once, except ``wait``."""

    def __init__(
        self, spec: ProcessSpec, *, log_path: Path, on_spawn: Callable[[], None] | None = None
    ) -> None:
        self.spec = spec
        self.log_path = log_path
        self.wanted = False
        self._on_spawn = on_spawn
        self._process: asyncio.subprocess.Process | None = None
        self._paused: list[psutil.Process] = []

    @property
    def name(self) -> str:
        """The name in the table."""
        return self.spec.name

    @property
    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and return when it is ready; at once when it runs already. Raises StartFailed."""
        if self.running:
            return
        self.wanted = True
        began = time.monotonic()
        try:
            await self.spec.prepare()
            await self._spawn()
            await self._until_ready()
            await self.spec.settle()
        except OSError as error:
            await self.kill()
            raise self._failure(f"could not be set up: {error}") from error
        except BaseException:
            await self.kill()
            raise
        log.debug("process ready", extra={"stack_process": self.name, "seconds": time.monotonic() - began})

    async def wait(self) -> int:
        """Wait for the end of a started process and return its exit code (-n: killed by signal n)."""
        if self._process is None:
            return 0
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end, wait, and kill it when it takes longer than its ``stop_seconds``. Idempotent."""
        self.wanted = False
        self.resume()
        if self._process is None or not self.running:
            return
        began = time.monotonic()
        with suppress(ProcessLookupError):
            self._process.send_signal(self.spec.stop_signal)
        try:
            async with asyncio.timeout(self.spec.stop_seconds):
                await self._process.wait()
        except TimeoutError:
            if not self.spec.killed_to_stop:
                log.warning("process did not stop in time", extra={"stack_process": self.name})
        await self.kill()
        log.debug("process stopped", extra={"stack_process": self.name, "seconds": time.monotonic() - began})

    async def kill(self) -> None:
        """SIGKILL it and all its descendants, and return when they are gone. Idempotent."""
        self._paused = []
        if self._process is None:
            return
        doomed = self._family()
        for process in doomed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        # The descendants are not our children: nothing but asking tells when they are gone.
        while any(_is_alive(process) for process in doomed):  # noqa: ASYNC110
            await asyncio.sleep(_PROBE_PAUSE_SECONDS)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it does not run."""
        if self._process is not None and self.running:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP it and its descendants."""
        self._paused = self._family()
        for process in self._paused:
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """SIGCONT whatever was paused."""
        for process in self._paused:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        self._paused = []

    def log_tail(self) -> str:
        """The last lines of the log."""
        if not self.log_path.exists():
            return "(no log)"
        lines = self.log_path.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(the log is empty)"

    async def _spawn(self) -> None:
        spec = self.spec
        identity = "-" if spec.identity is None else f"{spec.identity.uid}:{spec.identity.gid}"
        with self.log_path.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", str(_LAUNCHER)),
                *(str(os.getpid()), str(int(spec.runner_died_signal)), identity),
                *spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
                env=inherited_environment() | dict(spec.env),
                cwd=spec.folder,
                start_new_session=True,
            )
        if self._on_spawn is not None:
            self._on_spawn()

    async def _until_ready(self) -> None:
        process = self._process
        assert process is not None
        try:
            async with asyncio.timeout(self.spec.ready_seconds):
                if self.spec.one_shot:
                    if await process.wait() != 0:
                        raise self._failure(f"exited with {process.returncode}")
                    return
                await self._until_probe_passes(process)
        except TimeoutError:
            raise self._failure(f"was not ready after {self.spec.ready_seconds:g} s") from None

    async def _until_probe_passes(self, process: asyncio.subprocess.Process) -> None:
        while True:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self.spec.ready()
            except (NotReady, TimeoutError):
                if process.returncode is not None:
                    raise self._failure(f"exited with {process.returncode}") from None
                await asyncio.sleep(_PROBE_PAUSE_SECONDS)
            else:
                return

    def _failure(self, what: str) -> StartFailed:
        return StartFailed(f"{self.name} {what}; the end of {self.log_path}:\n{self.log_tail()}")

    def _family(self) -> list[psutil.Process]:
        if self._process is None or not self.running:
            return []
        try:
            head = psutil.Process(self._process.pid)
            return [head, *head.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def inherited_environment() -> dict[str, str]:
    """The environment of this process without settings that belong to the stack itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE_PREFIXES)}
