"""Runs a module with a clock that can be wrong: ``python skewed_clock.py FILE -m module [arguments]``.

``FILE`` holds the offset in seconds that is added to ``time.time`` and ``time.time_ns``; it is read at the
start and again at each SIGUSR1, so that the clock steps while the module runs. An empty or missing file is 0.
The monotonic clocks, and what asks the kernel without these two functions, stay right.
"""

from __future__ import annotations

import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_true_ns = time.time_ns
_offset_ns = 0


def main(arguments: list[str]) -> None:
    """Becomes the module."""
    file, flag, module, *rest = arguments
    if flag != "-m":
        sys.exit("usage: skewed_clock.py FILE -m module [arguments]")
    path = Path(file)

    def read(_signal: int = 0, _frame: FrameType | None = None) -> None:
        global _offset_ns
        text = path.read_text("utf-8").strip() if path.exists() else ""
        _offset_ns = int(float(text or 0) * 1e9)

    signal.signal(signal.SIGUSR1, read)
    read()
    time.time = lambda: (_true_ns() + _offset_ns) / 1e9
    time.time_ns = lambda: _true_ns() + _offset_ns
    sys.argv = [module, *rest]
    # The folder of this script must not be where the module looks for others.
    sys.path[0] = ""
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
