"""``python -m cinnabar_grader.processes.child <file descriptor of a socket>``: one worker process.

It opens a kind and grades the batches that come, one after the other, in a thread, so that its event
loop can say meanwhile that it lives. It ends when the socket is closed, and dies with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from cinnabar_common.logs import configure_logging
from cinnabar_grader.graders import Grader, Outcome, Task, defect
from cinnabar_grader.kinds import Check, Opened, Opening
from cinnabar_grader.pipeline import graded
from cinnabar_grader.processes import frames

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
ITEMS_KEPT = 1024
"""Items of which one object is kept, by last use: graders may keep what they made of an item by it."""
_PR_SET_PDEATHSIG = 1


class Nobody:
    """Implements Colleagues where there are none."""

    async def grade(self, queue: str, tasks: Sequence[Task]) -> list[Outcome]:
        """See Colleagues."""
        raise ConnectionError("a worker process has no colleagues")


class Items:
    """Makes the items of one key the same object in all batches, as they are where they come from."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, object] = OrderedDict()

    def intern(self, tasks: Sequence[Task]) -> None:
        """Gives tasks the items that were seen first."""
        for task in tasks:
            if task.item_key:
                task.item = self._items.setdefault(task.item_key, task.item)
                self._items.move_to_end(task.item_key)
        while len(self._items) > ITEMS_KEPT:
            self._items.popitem(last=False)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Works until the other side closes the stream."""
    first = await frames.read(reader)
    if not isinstance(first, frames.Open):
        return
    # BLAS reads this when numpy is imported; unset, one process would take all cores of the machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(first.config.semantic_threads))
    checks: dict[str, Check] = {}
    async with AsyncExitStack() as exits:
        group = await exits.enter_async_context(asyncio.TaskGroup())
        beating = group.create_task(_beat(writer, checks), name="beat")
        exits.callback(beating.cancel)
        opened: Opened = await first.kind.open(Opening(config=first.config, exits=exits, colleagues=Nobody()))
        checks.update(opened.checks)
        graders = {grader.queue: cast("Grader", grader) for grader in opened.graders}
        facts = {
            queue: frames.GraderFacts(grader.name, grader.version, grader.batch_limit)
            for queue, grader in graders.items()
        }
        frames.write(writer, frames.Ready(facts))
        items = Items()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="grading") as thread:
            while isinstance(message := await frames.read(reader), frames.Batch):
                items.intern(message.tasks)
                outcomes = await loop.run_in_executor(thread, graded, graders[message.queue], message.tasks)
                try:
                    frames.write(writer, frames.Outcomes(message.number, outcomes))
                except Exception as error:  # an outcome that cannot be pickled must not end the process
                    failed = [defect(task, error) for task in message.tasks]
                    frames.write(writer, frames.Outcomes(message.number, failed))


async def _beat(writer: asyncio.StreamWriter, checks: dict[str, Check]) -> None:
    healthy: dict[str, bool] = {}
    due = 0.0
    loop = asyncio.get_running_loop()
    while True:
        if loop.time() >= due and checks:
            names = list(checks)
            verdicts = await asyncio.gather(*(_verdict(checks[name]) for name in names))
            healthy = dict(zip(names, verdicts, strict=True))
            due = loop.time() + CHECK_SECONDS
        frames.write(writer, frames.Beat(_memory(), healthy))
        await asyncio.sleep(frames.BEAT_SECONDS)


async def _verdict(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except Exception as error:  # any failure at all means unhealthy
        log.debug("health check failed", exc_info=error)
        return False
    return True


def _memory() -> int:
    """Resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def die_with(parent: int) -> None:
    """This process is killed when ``parent``, which started it, ends; at once when that has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    try:
        await serve(reader, writer)
    finally:
        writer.close()


def main(descriptor: int, parent: int) -> None:
    """Runs until the socket is closed."""
    # Signals for the group are the parent's affair: it drains, and closes the socket then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with(parent)
    configure_logging()
    asyncio.run(_main(descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
