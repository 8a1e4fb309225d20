"""What a sandbox is: files and a command in, an ending and output out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

MIB = 1 << 20
NAME_LIMIT = 255
"""Most bytes of one part of a file's name."""
PATH_LIMIT = 1024
"""Most bytes of a file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use. ValueError for a limit that is not above 0."""

    cpu_seconds: float = 5.0
    """Of all processes together."""
    wall_seconds: float = 10.0
    """From the start to the end; waiting for a free box does not count."""
    memory_bytes: int = 256 * MIB
    """Of all processes together, the files they wrote included, where the machine can tell; else of each."""
    processes: int = 64
    """At once; threads count."""
    open_files: int = 256
    """Of each process."""
    file_bytes: int = 16 * MIB
    """Of each file. All files that a run writes to its folder may have four times as much together."""
    output_bytes: int = MIB
    """Of stdout and stderr together."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")


class Ending(Enum):
    """How a run ended."""

    EXITED = "exited"
    """By itself; see the exit code."""
    SIGNALED = "signaled"
    """Killed by a signal that no limit sent."""
    TIME_LIMIT = "time-limit"
    """CPU or wall clock."""
    MEMORY_LIMIT = "memory-limit"
    OUTPUT_LIMIT = "output-limit"
    """Too much on stdout and stderr, or in one file."""
    FORBIDDEN = "forbidden"
    """Made a system call that no honest program makes."""
    FAILED = "failed"
    """The box itself broke: nobody's fault, try again. `Run.reason` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run came to."""

    ending: Ending
    exit_code: int = 0
    """Of the command; 0 unless EXITED; 127 when it could not be executed. With bubblewrap a program that
    exits with 128 + n cannot be told from one that signal n ended, and counts as the latter."""
    signal: int = 0
    """The signal that ended the command, when one did."""
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0
    """The most at once."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What was collected, by name. Names that are no regular file, or larger than `Limits.file_bytes`, are
    left out."""
    reason: str = ""
    """Why the box FAILED, for operators."""


class Folder(Protocol):
    """Files that runs see."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limits: Limits = ...,
        keep: bool = False,
        collect: Sequence[str] = (),
        environment: Mapping[str, str] = ...,
    ) -> Run:
        """Runs a command in a box of its own whose working directory holds the folder's files.

        What the run writes is gone afterwards, unless ``keep``: then the regular files that it leaves in
        the working directory become the folder's files, if it EXITED with 0. Runs may overlap; they see
        nothing of each other. The environment holds ``environment`` and, unless it says otherwise, PATH,
        HOME, TMPDIR and LANG. A program is found by PATH.

        Cancelling kills all processes of the run before it returns. Raises ValueError for arguments that
        cannot work; whatever befalls the run is an `Ending`.
        """
        ...


class Sandbox(Protocol):
    """A way to run programs that nobody trusts."""

    @property
    def mechanism(self) -> str:
        """Its name: "bubblewrap", "landlock" or "rlimits"."""
        ...

    @property
    def strong(self) -> bool:
        """Whether it holds programs that mean harm."""
        ...

    @property
    def missing(self) -> Sequence[str]:
        """What of the full set of walls and limits this machine does not give, in words."""
        ...

    @property
    def slots(self) -> int:
        """Runs at once; more wait."""
        ...

    @property
    def python(self) -> str:
        """The Python inside the boxes."""
        ...

    def folder(self, files: Mapping[str, bytes]) -> AbstractAsyncContextManager[Folder]:
        """A folder with these files, by relative name; all are executable. Leaving it removes all.

        ValueError for a name that is absolute, has "..", empty parts or NUL, or is too long.
        """
        ...


def check_name(name: str) -> None:
    """ValueError unless ``name`` is a relative name that stays inside a folder."""
    parts = name.split("/")
    if not name or "\0" in name or len(name.encode("utf-8", "surrogatepass")) > PATH_LIMIT:
        raise ValueError("a file's name must have 1 to 1024 bytes and no NUL")
    for part in parts:
        if part in ("", ".", "..") or len(part.encode("utf-8", "surrogatepass")) > NAME_LIMIT:
            raise ValueError("a file's name must be relative, without '.', '..' and empty parts")
    name.encode()


def check_run(argv: Sequence[str], collect: Sequence[str], environment: Mapping[str, str]) -> None:
    """ValueError for arguments of `Folder.run` that cannot work."""
    if not argv or not argv[0]:
        raise ValueError("there is no program to run")
    if any("\0" in word for word in (*argv, *environment, *environment.values())):
        raise ValueError("arguments and environment must not hold NUL")
    if any(not name or "=" in name for name in environment):
        raise ValueError("names of the environment must not be empty or hold '='")
    for name in collect:
        check_name(name)
