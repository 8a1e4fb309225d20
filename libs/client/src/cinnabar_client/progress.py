"""Counts that rise: bars in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_SECONDS = 2.0


class Counts:
    """Named counts and how far they will go; a context manager."""

    def __init__(self, console: Console, totals: dict[str, int | None]) -> None:
        self._console = console
        self._totals = totals
        self._done = dict.fromkeys(totals, 0)
        self._last_line = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        self._tasks = {name: self._bars.add_task(name, total=total) for name, total in self._totals.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if not self._console.is_terminal:
            self._line()

    def total(self, name: str, total: int) -> None:
        """From now on ``name`` goes up to ``total``."""
        self._totals[name] = total
        self._bars.update(self._tasks[name], total=total)

    def advance(self, name: str, by: int = 1) -> None:
        """``by`` more of ``name``."""
        self._done[name] += by
        self._bars.advance(self._tasks[name], by)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        parts = [
            f"{name} {done}" + ("" if self._totals[name] is None else f"/{self._totals[name]}")
            for name, done in self._done.items()
        ]
        self._console.print(", ".join(parts), markup=False, highlight=False)
