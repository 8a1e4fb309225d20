"""Processes whose parents in a box were killed become children of the keeper: it lets them rest."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from cinnabar_grader.sandbox.keeper import processes


class Orphans:
    """Collects every dead child of this process but those that somebody waits for."""

    def __init__(self, *, lost: bool) -> None:
        self._lost = lost
        """Whether a child that nobody waits for belongs to no run any more, and is killed."""
        self.awaited: set[int] = set()
        """Children that are collected by those who started them."""

    def watch(self) -> None:
        """From now on, on the running loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.collect)

    def collect(self) -> None:
        """All that are dead now."""
        for child in processes.children(os.getpid()):
            if child in self.awaited:
                continue
            with suppress(ChildProcessError, ProcessLookupError):
                if os.waitpid(child, os.WNOHANG)[0] == 0 and self._lost:
                    os.kill(child, signal.SIGKILL)
