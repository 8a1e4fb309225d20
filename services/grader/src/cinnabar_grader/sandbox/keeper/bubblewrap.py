"""Boxes made by bubblewrap: every namespace, the system read-only, the filter of calls."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cinnabar_grader.sandbox import seccomp
from cinnabar_grader.sandbox.keeper.child import NOT_FOUND, Status
from cinnabar_grader.sandbox.keeper.ground import Ground, RunFolder
from cinnabar_grader.sandbox.keeper.launch import Launch, enter, fork, replace
from cinnabar_grader.sandbox.keeper.settings import Settings

HOME = "/box"
USER = 1000
_OWN_PROCESSES = 2
"""Bubblewrap outside and its process 1 inside."""
_NOT_EXECUTED = b"bwrap: execvp "
"""What bubblewrap says, and no program in the box could say in its place: none was there yet."""
_HIDDEN = "/proc/sys"
"""Settings of the machine. What else /proc says of it needs rights that no box has, or is no secret; every
further mount would cost each run a millisecond."""


class Bubblewrap:
    """The first choice. RuntimeError when the machine lacks what it needs."""

    name = "bubblewrap"

    def __init__(self, settings: Settings, ground: Ground) -> None:
        if not settings.bubblewrap:
            raise RuntimeError("there is no bubblewrap")
        if not ground.private:
            raise RuntimeError("mount namespaces are not allowed here")
        if not seccomp.supported():
            raise RuntimeError("the calls of this processor are not known")
        ground.build_system(settings.trees)
        self._ground = ground
        self._program = ground.install(settings.bubblewrap)
        self._filter = ground.root / "tools" / "filter"
        self._filter.write_bytes(seccomp.program(ipc=True))
        self._filter.chmod(0o644)
        self._fixed = self._arguments()

    @property
    def missing(self) -> Sequence[str]:
        """Nothing."""
        return ()

    @property
    def sealed(self) -> bool:
        """By its pid namespace."""
        return True

    @property
    def alone(self) -> bool:
        """Never."""
        return False

    def places(self, folder: RunFolder) -> Mapping[str, str]:
        """The same for every run."""
        del folder
        return {"HOME": HOME, "TMPDIR": "/tmp"}

    def start(self, launch: Launch, slot: int) -> BubblewrapChild:
        """Begins a run."""
        user = self._ground.user(slot)
        status, told = os.pipe2(os.O_CLOEXEC)
        gate: tuple[int, int] | None = None
        # Without a user of its own a run shares the count of processes with all others outside, so the
        # limit is set on the inside, where the count is its own.
        inner_limit = launch.limits.processes + 1 if user is None else 0
        if inner_limit:
            gate = os.pipe2(os.O_CLOEXEC)
        folder = launch.folder.path

        def body() -> None:
            enter(launch, user=user, processes=0 if inner_limit else launch.processes + _OWN_PROCESSES)
            rules = os.open(self._filter, os.O_RDONLY)
            for descriptor in (rules, told, *(gate[:1] if gate else ())):
                os.set_inheritable(descriptor, True)
            arguments = [
                self._program,
                *self._fixed,
                *("--bind", f"{folder}/tmp", "/tmp", "--bind", f"{folder}/shm", "/dev/shm"),
                *(() if self._ground.devices else ("--remount-ro", "/dev")),
                *("--bind", f"{folder}/box", HOME, "--chdir", HOME),
                *("--seccomp", str(rules), "--json-status-fd", str(told)),
                *(("--block-fd", str(gate[0])) if gate else ()),
                "--",
                *launch.argv,
            ]
            replace(self._program, arguments, launch.environment)

        pid, errors = fork(body)
        os.close(told)
        if gate:
            os.close(gate[0])
        return BubblewrapChild(pid, errors, status, gate[1] if gate else None, inner_limit)

    def _arguments(self) -> list[str]:
        empty = self._ground.root / "tools" / "empty"
        empty.mkdir(mode=0o555)
        devices = self._ground.devices
        return [
            *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
            *("--unshare-cgroup-try", "--uid", str(USER), "--gid", str(USER), "--hostname", "box"),
            *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--ro-bind", str(self._ground.root / "system"), "/", "--proc", "/proc"),
            *("--ro-bind", str(empty), _HIDDEN),
            *(("--dev", "/dev") if devices is None else ("--dev-bind", str(devices), "/dev")),
        ]


class BubblewrapChild:
    """A run under way."""

    def __init__(self, pid: int, errors: int, status: int, gate: int | None, inner_limit: int) -> None:
        self.pid = pid
        self.errors = errors
        self._status = status
        self._gate = gate
        self._inner_limit = inner_limit
        self._said = b""
        os.set_blocking(status, False)

    def watched(self, watch: Callable[[int, Callable[[], bool]], None]) -> None:
        """What bubblewrap tells about the box."""
        watch(self._status, self._listen)

    def _listen(self) -> bool:
        try:
            data = os.read(self._status, 4096)
        except BlockingIOError:
            return True
        self._said += data
        if self._gate is not None and (inside := self._facts().get("child-pid")):
            with suppress(ProcessLookupError):
                resource.prlimit(inside, resource.RLIMIT_NPROC, (self._inner_limit, self._inner_limit))
            os.write(self._gate, b"0")
            os.close(self._gate)
            self._gate = None
        return bool(data)

    def kill(self) -> None:
        """Kills process 1 of the box, and with it the kernel kills all others."""
        self._listen()
        inside = self._facts().get("child-pid")
        for pid in (inside, None if inside else self.pid):
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def sweep(self) -> None:
        """Nothing outlives process 1 of the box, and bubblewrap waits for it."""

    def status(self, code: int, stderr: bytes) -> Status:
        """What the exit code of bubblewrap means. RuntimeError when the box was never finished."""
        self._listen()
        if "exit-code" not in self._facts():
            if stderr.startswith(_NOT_EXECUTED):
                return Status(NOT_FOUND)
            raise RuntimeError("bubblewrap could not make the box")
        return Status.of_shell(code)

    def close(self) -> None:
        """Once all is over."""
        os.close(self._status)
        os.close(self.errors)
        if self._gate is not None:
            os.close(self._gate)

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for line in self._said.splitlines():
            with suppress(ValueError):
                facts |= json.loads(line)
        return facts


def works(program: str) -> bool:
    """Whether the program can be executed at all."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=5).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
