"""Boxes that the keeper makes itself: with Landlock and what namespaces it may have, or, at the very
least, with limits alone."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from cinnabar_grader.sandbox import seccomp
from cinnabar_grader.sandbox.keeper import kernel, processes
from cinnabar_grader.sandbox.keeper.child import NOT_FOUND, Status
from cinnabar_grader.sandbox.keeper.ground import Ground, RunFolder, open_way
from cinnabar_grader.sandbox.keeper.landlock import Rules
from cinnabar_grader.sandbox.keeper.launch import Launch, become, enter, fork, replace
from cinnabar_grader.sandbox.keeper.settings import Settings

_NAMESPACES = (
    kernel.CLONE_NEWPID,
    kernel.CLONE_NEWNS,
    kernel.CLONE_NEWNET,
    kernel.CLONE_NEWIPC,
    kernel.CLONE_NEWUTS,
    kernel.CLONE_NEWCGROUP,
)
_STATUS = struct.Struct("=i")


class Direct:
    """Shared by both: `Landlock` and `Rlimits`."""

    name = ""

    def __init__(self, settings: Settings, ground: Ground, *, namespaces: int) -> None:
        self._ground = ground
        self._settings = settings
        self._namespaces = namespaces
        self._filter = (
            seccomp.program(ipc=bool(namespaces & kernel.CLONE_NEWIPC)) if seccomp.supported() else None
        )
        self.missing: list[str] = ["/tmp of its own (TMPDIR is)"]

    @property
    def sealed(self) -> bool:
        """With a pid namespace."""
        return bool(self._namespaces & kernel.CLONE_NEWPID)

    @property
    def alone(self) -> bool:
        """Whether only one run may be there at a time, because nothing else tells runs apart."""
        return not self._namespaces & kernel.CLONE_NEWPID and self._ground.user(0) is None

    def places(self, folder: RunFolder) -> Mapping[str, str]:
        """Where they are on the machine."""
        return {"HOME": str(folder.box), "TMPDIR": str(folder.path / "tmp")}

    def start(self, launch: Launch, slot: int) -> DirectChild:
        """Begins a run."""
        user = self._ground.user(slot)
        apart = bool(self._namespaces & kernel.CLONE_NEWPID)
        status, told = os.pipe2(os.O_CLOEXEC)

        def program() -> NoReturn:
            if user is not None:
                kernel.drop_bounding_capabilities()
            become(user, launch.processes + 1)
            self._shut_in(launch.folder)
            kernel.no_new_privileges()
            if self._filter is not None:
                kernel.filter_calls(self._filter)
            _execute(launch)

        def body() -> None:
            enter(launch, user=None, processes=0)
            os.chdir(launch.folder.box)
            if self._namespaces:
                kernel.unshare(self._namespaces)
            if apart:
                _relay(told, program, self._arrange)
            program()

        pid, errors = fork(body)
        os.close(told)
        return DirectChild(pid, errors, status, apart=apart, user=user)

    def _arrange(self) -> None:
        """What is mounted for a box alone, before its user changes."""
        if not self._namespaces & kernel.CLONE_NEWNS:
            return
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        if self._ground.user(0) is not None:
            open_way(self._settings.trees)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", "/proc", "proc", flags)

    def _shut_in(self, folder: RunFolder) -> None:
        """The last walls, from inside."""


class Landlock(Direct):
    """The second choice. RuntimeError when the machine lacks what it needs."""

    name = "landlock"

    def __init__(self, settings: Settings, ground: Ground) -> None:
        if not seccomp.supported():
            raise RuntimeError("the calls of this processor are not known")
        namespaces = _allowed() if settings.namespaces else 0
        own_proc = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS
        self._rules = Rules(settings.trees, proc=namespaces & own_proc == own_proc)
        super().__init__(settings, ground, namespaces=namespaces)
        if not self._namespaces & kernel.CLONE_NEWPID and ground.user(0) is None and not self._rules.scoped:
            raise RuntimeError("nothing here keeps signals inside a box")
        self.missing.append("names and sizes of files outside are visible")

    def _shut_in(self, folder: RunFolder) -> None:
        self._rules.restrict((folder.box, folder.path / "tmp"))


class Rlimits(Direct):
    """What works everywhere; no wall against programs that mean harm."""

    name = "rlimits"

    def __init__(self, settings: Settings, ground: Ground) -> None:
        super().__init__(settings, ground, namespaces=_allowed() if settings.namespaces else 0)
        self.missing.append("a wall around files")


class DirectChild:
    """A run under way. Its process is the program, or, ``apart``, the parent of process 1 of the box."""

    def __init__(self, pid: int, errors: int, status: int, *, apart: bool, user: int | None) -> None:
        self.pid = pid
        self.errors = errors
        self._status = status
        self._apart = apart
        self._user = user
        os.set_blocking(status, False)

    def watched(self, watch: Callable[[int, Callable[[], bool]], None]) -> None:
        """Nothing but the end."""

    def kill(self) -> None:
        """Kills process 1, and with it the kernel all others; or one after the other."""
        if self._apart:
            victim = next((pid for pid in processes.below(self.pid) if pid != self.pid), self.pid)
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.sweep()

    def sweep(self) -> None:
        """Kills what outlived the command."""
        if self._apart:
            return
        while victims := self._victims():
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):  # orphans are children of the keeper
                    os.waitpid(pid, os.WNOHANG)

    def status(self, code: int, stderr: bytes) -> Status:
        """How the command ended."""
        del stderr
        if not self._apart:
            return Status(0, -code) if code < 0 else Status(code)
        try:
            told = os.read(self._status, _STATUS.size)
        except BlockingIOError:
            told = b""
        if len(told) < _STATUS.size:
            raise RuntimeError("process 1 of the box is gone")
        return Status.of_wait(_STATUS.unpack(told)[0])

    def close(self) -> None:
        """Once all is over."""
        os.close(self._status)
        os.close(self.errors)

    def _victims(self) -> Sequence[int]:
        """Processes of the run, but for the first, which its watch collects."""
        if self._user is not None:
            found = processes.of_user(self._user)
        else:
            found = [pid for pid in processes.below(os.getpid()) if pid != os.getpid()]
        return [pid for pid in found if pid != self.pid]


def _allowed() -> int:
    """Which namespaces this process may make, found by making them."""
    flags = 0
    for flag in _NAMESPACES:
        pid = os.fork()
        if pid == 0:
            try:
                kernel.unshare(flag)
            except OSError:
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            flags |= flag
    return flags


def _relay(told: int, program: Callable[[], NoReturn], arrange: Callable[[], None]) -> NoReturn:
    """Becomes the parent of process 1, which becomes the parent of the program and says how it ended."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        os._exit(0)
    kernel.die_with_parent(signal.SIGKILL)
    kernel.hide_memory()
    arrange()
    command = os.fork()
    if command == 0:
        program()
    for descriptor in range(3):
        os.close(descriptor)
    while True:
        pid, status = os.wait()
        if pid == command:
            os.write(told, _STATUS.pack(status))
            os._exit(0)


def _execute(launch: Launch) -> NoReturn:
    """Looks for the program as execvp does. What cannot be executed ends as in a shell."""
    name = launch.argv[0]
    folders = launch.environment.get("PATH", "").split(":") if "/" not in name else [""]
    for folder in folders:
        try:
            replace(os.path.join(folder, name), launch.argv, launch.environment)
        except OSError:
            continue
    os.write(2, f"{name}: cannot be executed\n".encode())
    os._exit(NOT_FOUND)
