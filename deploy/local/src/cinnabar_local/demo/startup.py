"""Tells which process of the suite became ready, as it happens."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console

_RUNNER = "cinnabar_local"
_READY = "process ready"  # the runner's event


class _Told(logging.Handler):
    """Prints what the runner says about its processes."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.DEBUG)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        name: str | None = getattr(record, "stack_process", None)
        if name is None:
            return
        seconds: float | None = getattr(record, "seconds", None)
        if record.msg == _READY and seconds is not None:
            self._console.print(f"  {name:20} ready after {seconds:.1f} s", markup=False)
        elif record.levelno >= logging.WARNING:
            self._console.print(f"  {name:20} {record.getMessage()}", style="yellow", markup=False)


@contextmanager
def told(console: Console) -> Generator[None]:
    """Inside, every process that becomes ready, dies or comes back is a line on ``console``."""
    logger = logging.getLogger(_RUNNER)
    handler, level, propagate = _Told(console), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
