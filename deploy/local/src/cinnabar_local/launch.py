"""Become one process of the stack: drop privileges, tie the life of the process to the runner's, exec.

Run by path with ``python -I -S`` so that it costs some milliseconds only. It stands between the runner and
the program because code between fork and exec is unsafe in a runner that has threads, and because the kernel
forgets the parent-death signal when the user id changes.

Arguments: runner pid, number of the parent-death signal, ``uid:gid`` or ``-``, then the command.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Never returns: the process becomes the command, or exits with 1 when the runner is gone already."""
    runner, death_signal, identity, *command = arguments
    if identity != "-":
        uid, gid = (int(part) for part in identity.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(runner):
        sys.exit("the stack runner is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
