"""How a command of the runner talks to the terminal it was started from, and ends."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from rich.console import Console

from cinnabar_local.binaries import ProgramMissing
from cinnabar_local.folders import StackIsRunning
from cinnabar_local.process import StartFailed

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

console = Console(highlight=False, soft_wrap=True)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run ``main``; SIGINT and SIGTERM cancel it, once, and then the exit code is 130.

    What fails to start is told in words, without a trace, and the exit code is 1.
    """

    async def supervised() -> int:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, lambda: None)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            return await task
        except asyncio.CancelledError:
            return _INTERRUPTED

    try:
        return asyncio.run(supervised())
    except (StartFailed, StackIsRunning, ProgramMissing, OSError, LookupError) as error:
        console.print(f"[red]failed:[/red] {error}", markup=True)
        return 1
