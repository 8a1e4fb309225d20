"""How much of the machine this process may use."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores that may be used, by affinity and by the quota of the container; at least 1."""
    count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text("ascii").split()
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)


def free_memory(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int:
    """Bytes that may still be taken, on the machine and in the container; very many when nothing tells."""
    free: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = meminfo.read_text("ascii").splitlines()
        free.append(next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024)
    with suppress(OSError, ValueError):
        most = int((cgroup / "memory.max").read_text("ascii"))
        free.append(max(0, most - int((cgroup / "memory.current").read_text("ascii"))))
    return min(free, default=sys.maxsize)
