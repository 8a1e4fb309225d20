"""``python -m cinnabar_grader.sandbox.keeper SOCKET SETTINGS``; started by the grader only.

Where it may, the keeper is process 1 of a pid namespace of its own: when it dies, the kernel kills
everything that is in there, also a box that is just being made. Its parent, which does nothing but wait
for it, then clears away what it left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack

from cinnabar_grader.sandbox import frames
from cinnabar_grader.sandbox.keeper import cgroups, kernel
from cinnabar_grader.sandbox.keeper.cgroups import Groups
from cinnabar_grader.sandbox.keeper.ground import Ground
from cinnabar_grader.sandbox.keeper.mechanisms import MECHANISMS
from cinnabar_grader.sandbox.keeper.probe import examined
from cinnabar_grader.sandbox.keeper.service import Keeper
from cinnabar_grader.sandbox.keeper.settings import Settings


async def keep(grader: socket.socket, settings: Settings, ground: Ground, groups: Groups | None) -> None:
    """Until the grader is gone."""
    reader, writer = await asyncio.open_connection(sock=grader)
    try:
        keeper = Keeper(settings, ground, groups, MECHANISMS[settings.mechanism](settings, ground))
        strong, missing = await examined(keeper)
    except (OSError, RuntimeError) as error:
        writer.write(frames.encoded({"error": str(error) or type(error).__name__}))
        await writer.drain()
        return
    writer.write(frames.encoded({"strong": strong, "missing": missing}))
    await writer.drain()
    await keeper.serve(reader, writer)


def main() -> None:
    """The grader's signals are the grader's business: its keeper leaves when it does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    kernel.adopt_orphans()
    grader = socket.socket(fileno=int(sys.argv[1]))
    grader.set_inheritable(False)  # no box may ever speak to the grader
    settings = Settings.loaded(sys.argv[2])
    with ExitStack() as exits:
        try:
            ground = Ground(namespaces=settings.namespaces)
            exits.callback(ground.remove)
            groups = cgroups.find(settings.cgroup) if settings.cgroups else None
            if groups is not None:
                exits.callback(groups.close)
        except OSError as error:
            grader.sendall(frames.encoded({"error": str(error)}))
            return
        kernel.hide_memory()  # not before: it takes away the right to map users
        if not ground.private or not _apart():
            asyncio.run(keep(grader, settings, ground, groups))
            return
        first = os.fork()
        if first == 0:
            _be_first(grader, settings, ground, groups)
        grader.close()
        os.waitpid(first, 0)


def _apart() -> bool:
    """Whether the next child is process 1 of a pid namespace."""
    try:
        kernel.unshare(kernel.CLONE_NEWPID)
    except OSError:
        return False
    return True


def _be_first(grader: socket.socket, settings: Settings, ground: Ground, groups: Groups | None) -> None:
    try:
        kernel.die_with_parent(signal.SIGKILL)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", "/proc", "proc", flags)
        asyncio.run(keep(grader, settings, ground, groups))
    except OSError as error:
        grader.sendall(frames.encoded({"error": str(error)}))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
