"""Processes whose parents in a box were killed become children of the keeper: it lets them rest."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path


class Orphans:
    """Collects every dead child of this process but those that somebody waits for."""

    def __init__(self) -> None:
        self.awaited: set[int] = set()
        """Children that are collected by those who started them."""

    def watch(self) -> None:
        """From now on, on the running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.collect)

    def collect(self) -> None:
        """All that are dead now."""
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            if int(child) not in self.awaited:
                with suppress(ChildProcessError):
                    os.waitpid(int(child), os.WNOHANG)
