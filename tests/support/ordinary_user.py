"""Runs a Python program as a user who is nobody: ``python -m tests.support.ordinary_user PROGRAM…``.

As root it becomes one; else it is one already. Where Python lives in a folder that is closed to others, it
is opened for this process alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cinnabar_grader.sandbox.keeper import kernel
from cinnabar_grader.sandbox.keeper.ground import open_way

USER = 51_999


def main() -> None:
    if os.geteuid() == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        open_way([str(Path(sys.executable).resolve().parents[1]), str(Path(__file__).parents[2])])
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


if __name__ == "__main__":
    main()
