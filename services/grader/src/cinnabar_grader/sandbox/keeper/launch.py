"""From the keeper into a box: what happens between fork and exec, whatever the mechanism."""

from __future__ import annotations

import math
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from cinnabar_grader.sandbox.keeper import kernel
from cinnabar_grader.sandbox.keeper.ground import RunFolder
from cinnabar_grader.sandbox.runs import Limits

_CPU_GRACE_SECONDS = 1
"""The kernel's own limit comes after the keeper's, which counts all processes."""
_NO_CORE = 1
"""Too little for a file, and the one value that also keeps the machine's handler of crashes from starting:
0 would not (see core(5) on piping)."""
_BROKEN = 126
_BEHIND_CGROUP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that a box needs to know about one run."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: RunFolder
    limits: Limits
    stdin: int
    stdout: int
    stderr: int
    doors: Sequence[int] = ()
    """Of the run's cgroups; none: the process's own limits must do."""

    @property
    def processes(self) -> int:
        """The limit for the user of the run. Behind a cgroup it is the second wall and stands back: the same
        number may be somebody's in another container of the machine."""
        return self.limits.processes * (_BEHIND_CGROUP if self.doors else 1)


def fork(body: Callable[[], object]) -> tuple[int, int]:
    """Runs ``body`` in a new process, which must end in exec. Returns its id and a descriptor that gives
    what went wrong before that, and then its end. No other thread may be running."""
    read, write = os.pipe2(os.O_CLOEXEC)
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(_BROKEN)
        body()
    except BaseException as error:
        os.write(write, f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        os._exit(_BROKEN)


def enter(launch: Launch, *, user: int | None, processes: int) -> None:
    """In the new process: into its cgroups, under its limits, to its user."""
    os.setsid()
    for door in launch.doors:
        os.write(door, b"0")
    _offer_to_the_kernel()
    for target, source in enumerate((launch.stdin, launch.stdout, launch.stderr)):
        os.dup2(source, target)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for what, limit in _limits(launch).items():
        resource.setrlimit(what, (limit, limit))
    become(user, processes)


def become(user: int | None, processes: int) -> None:
    """Changes the user, when one is given, and limits its processes, unless by 0."""
    if processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.die_with_parent(signal.SIGKILL)  # the change of user has undone it


def replace(program: str, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Becomes ``program``."""
    os.execve(program, list(argv), dict(environment))


def _limits(launch: Launch) -> dict[int, int]:
    limits = launch.limits
    found = {
        resource.RLIMIT_CPU: math.ceil(limits.cpu_seconds) + _CPU_GRACE_SECONDS,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: _NO_CORE,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    if not launch.doors:
        # Not the address space: node and Java reserve much more of it than they use.
        found[resource.RLIMIT_DATA] = limits.memory_bytes
    return found


def _offer_to_the_kernel() -> None:
    """When the whole machine runs out of memory, a box goes first."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        return
