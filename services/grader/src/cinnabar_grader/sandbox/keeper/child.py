"""A box under way, as the watch over it sees it; and how commands end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cinnabar_grader.sandbox.keeper.ground import RunFolder
from cinnabar_grader.sandbox.keeper.launch import Launch

NOT_FOUND = 127
"""Exit code of a program that could not be executed."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a command ended: with an exit code, or by a signal when that is not 0."""

    exit_code: int
    signal: int = 0

    @classmethod
    def of_shell(cls, code: int) -> Status:
        """From a code in which 128 + n stands for signal n."""
        return cls(0, code - 128) if 0 < code - 128 < signal.NSIG else cls(code)

    @classmethod
    def of_wait(cls, status: int) -> Status:
        """From the status that wait(2) gives."""
        if os.WIFSIGNALED(status):
            return cls(0, os.WTERMSIG(status))
        return cls(os.waitstatus_to_exitcode(status))


class Child(Protocol):
    """What a mechanism has started. Its process is a child of the keeper."""

    pid: int
    errors: int
    """Gives what went wrong before the command was there, and then its end."""

    def watched(self, watch: Callable[[int, Callable[[], bool]], None]) -> None:
        """Tells by ``watch`` which descriptors are to be waited for, and what to call then, which says
        whether more may come."""
        ...

    def kill(self) -> None:
        """Kills all processes of the box; may be called again."""
        ...

    def sweep(self) -> None:
        """Kills what outlived the child."""
        ...

    def status(self, code: int, stderr: bytes) -> Status:
        """How the command ended, when the child did with ``code`` (negative: by that signal), having
        written ``stderr``: with `NOT_FOUND` when it could not be executed. RuntimeError when the box was
        never finished."""
        ...

    def close(self) -> None:
        """Once all is over."""
        ...


class Mechanism(Protocol):
    """A way to make boxes."""

    name: str

    @property
    def missing(self) -> Sequence[str]:
        """What no probe can see, in words."""
        ...

    @property
    def sealed(self) -> bool:
        """Whether no process of a run that is under way ever becomes a child of the keeper."""
        ...

    @property
    def alone(self) -> bool:
        """Whether only one run may be there at a time."""
        ...

    def places(self, folder: RunFolder) -> Mapping[str, str]:
        """HOME, which is the working directory, and TMPDIR as the program sees them."""
        ...

    def start(self, launch: Launch, slot: int) -> Child:
        """Begins a run in the box of ``slot``. OSError when it cannot."""
        ...
