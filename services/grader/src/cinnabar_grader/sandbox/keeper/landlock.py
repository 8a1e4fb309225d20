"""What Landlock allows a box: the system to read, its own folder to write, nothing else.

Numbers are those of include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from cinnabar_grader.sandbox.keeper import kernel
from cinnabar_grader.sandbox.keeper.ground import JAVA_SETTINGS, SETTINGS, SYSTEM

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RIGHTS_BY_VERSION = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which version on how many of the bits are known."""
_NET_VERSION, _NET_RIGHTS = 4, 0b11
_SCOPE_VERSION, _SCOPES = 6, 0b11
"""Abstract unix sockets and signals stay among the processes of a box."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
LEAST_VERSION = 3
"""Before it, files outside could be cut to nothing."""


class Rules:
    """What every box may; RuntimeError where the kernel's Landlock is too old or not there."""

    def __init__(self, trees: Sequence[str], *, proc: bool) -> None:
        self.version = kernel.landlock_version()
        if self.version < LEAST_VERSION:
            raise RuntimeError(
                "the kernel has no Landlock" if not self.version else "its Landlock is too old"
            )
        self._trees = trees
        self._proc = proc
        bits = max(count for version, count in _RIGHTS_BY_VERSION if version <= self.version)
        self._handled = (1 << bits) - 1

    @property
    def scoped(self) -> bool:
        """Whether it also keeps signals inside."""
        return self.version >= _SCOPE_VERSION

    def restrict(self, folders: Sequence[Path]) -> None:
        """Shuts this process in, with ``folders`` as the only places to write."""
        net = _NET_RIGHTS if self.version >= _NET_VERSION else 0
        scopes = _SCOPES if self.scoped else 0
        sizes = {True: "=QQQ", False: "=QQ" if net else "=Q"}
        values = (self._handled, net, scopes)
        kind = sizes[self.scoped]
        ruleset = kernel.landlock_ruleset(struct.pack(kind, *values[: len(kind) - 1]))
        readable = _EXECUTE | _READ_FILE | _READ_DIR
        paths = [*SYSTEM, *SETTINGS, *map(str, Path("/etc").glob(JAVA_SETTINGS)), *self._trees]
        for path in (*paths, *(("/proc",) if self._proc else ())):
            self._allow(ruleset, path, readable)
        for path in _DEVICES:
            self._allow(ruleset, path, _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV)
        for folder in folders:
            self._allow(ruleset, str(folder), ~(_MAKE_CHAR | _MAKE_BLOCK))
        kernel.no_new_privileges()
        kernel.landlock_restrict(ruleset)
        os.close(ruleset)

    def _allow(self, ruleset: int, path: str, rights: int) -> None:
        if os.path.exists(path):
            mask = self._handled if os.path.isdir(path) else self._handled & _FILE_RIGHTS
            kernel.landlock_allow(ruleset, path, rights & mask)
