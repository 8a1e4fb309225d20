"""What a program that means harm is: its text, how its run must end, and what it must not have done.

A program prints ESCAPED when it got what it wanted, and "held" when it was refused.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cinnabar_grader.sandbox import Ending, Limits
from cinnabar_grader.sandbox.syscalls import NUMBERS

ESCAPED = b"ESCAPED"
HELD = b"held"
SECRET = "the-secret-of-the-grader"
"""In the grader's environment, its memory and its files; no program may ever print it."""
_COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
PRELUDE = f"""
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys, time
CALLS = { ({name: numbers[_COLUMN] for name, numbers in NUMBERS.items()})!r}
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    answer = libc.syscall(ctypes.c_long(CALLS[name]), *[
        ctypes.c_long(one) if isinstance(one, int) else one for one in arguments])
    if answer < 0:
        raise OSError(ctypes.get_errno(), name)
    return answer
def held(what=""):
    print("held", what, flush=True)
def escaped(what=""):
    print("ESCAPED", what, flush=True)
def refused(attempt, *arguments):
    try:
        answer = attempt(*arguments)
    except (OSError, ValueError, PermissionError) as error:
        held(error)
    else:
        escaped(answer)
def read(path):
    with open(path, "rb") as file:
        return file.read(1 << 16)
def write(path, data="x"):
    with open(path, "w") as file:
        file.write(data)
"""
LIMITS = Limits(cpu_seconds=4, wall_seconds=20, memory_bytes=96 << 20, processes=24, file_bytes=4 << 20)
SHORT = Limits(cpu_seconds=0.3, wall_seconds=1, memory_bytes=96 << 20, processes=24, file_bytes=4 << 20)
COMPILE = Limits(
    cpu_seconds=0.7, wall_seconds=10, memory_bytes=192 << 20, file_bytes=4 << 20, output_bytes=1 << 16
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One program."""

    text: str
    endings: tuple[Ending, ...] = (Ending.EXITED,)
    """Any of these is right."""
    says: bytes = HELD
    """What stdout must hold, so that we know that it tried; b"" for those that cannot say."""
    signals: tuple[int, ...] = ()
    """When SIGNALED: by one of these."""
    limits: Limits = LIMITS
    argv: Sequence[str] = ()
    """Instead of Python and the text."""
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    stdin: bytes = b""
    asks: str = ""
    """What stdin tells instead: "processes", "socket" or "paths" of the grader."""
    collect: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    """Which of them must come."""
    needs: str = ""
    """A program of the machine."""

    def command(self, python: str) -> list[str]:
        """What to run."""
        return list(self.argv) or [python, "-I", "-S", "-c", PRELUDE + self.text]


def forbidden(name: str, *arguments: int | str) -> Hostile:
    """A system call that ends the program."""
    written = ", ".join(str(argument) for argument in arguments)
    text = f"held('tries')\nescaped(call({name!r}{', ' if written else ''}{written}))"
    return Hostile(text=text, endings=(Ending.FORBIDDEN,))


def known(name: str) -> bool:
    """Whether this processor has the call."""
    return NUMBERS[name][_COLUMN] is not None


def machine() -> str:
    """The processor."""
    return os.uname().machine
