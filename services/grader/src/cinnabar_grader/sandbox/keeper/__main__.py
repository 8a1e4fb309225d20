"""``python -m cinnabar_grader.sandbox.keeper SOCKET SETTINGS``; started by the grader only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack

from cinnabar_grader.sandbox import frames
from cinnabar_grader.sandbox.keeper import cgroups, kernel
from cinnabar_grader.sandbox.keeper.ground import Ground
from cinnabar_grader.sandbox.keeper.mechanisms import MECHANISMS
from cinnabar_grader.sandbox.keeper.probe import examined
from cinnabar_grader.sandbox.keeper.service import Keeper
from cinnabar_grader.sandbox.keeper.settings import Settings


async def keep(descriptor: int, settings: Settings) -> None:
    """Until the grader is gone."""
    os.set_inheritable(descriptor, False)  # no box may ever speak to the grader
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    with ExitStack() as exits:
        try:
            ground = Ground(namespaces=settings.namespaces)
            exits.callback(ground.remove)
            kernel.hide_memory()  # not before: it takes away the right to map users
            groups = cgroups.find(settings.cgroup) if settings.cgroups else None
            if groups is not None:
                exits.callback(groups.close)
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
    asyncio.run(keep(int(sys.argv[1]), Settings.loaded(sys.argv[2])))


if __name__ == "__main__":
    main()
