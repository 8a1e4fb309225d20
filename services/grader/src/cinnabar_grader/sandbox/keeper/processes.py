"""What a process and all below it use, from /proc: for machines without cgroups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time so far, and memory now."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0

    def most(self, other: Usage) -> Usage:
        """The larger of each."""
        return Usage(
            max(self.cpu_seconds, other.cpu_seconds),
            max(self.memory_bytes, other.memory_bytes),
        )


def below(pid: int) -> Iterator[int]:
    """The process and all its descendants that are there now."""
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        yield current
        waiting += children(current)


def children(pid: int) -> list[int]:
    """The children of all threads of a process; none when it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, (_PROC / str(pid) / "task" / task / "children").read_text().split())
        return found
    return children_by_parent(pid) if (_PROC / str(pid)).exists() else []


def children_by_parent(pid: int) -> list[int]:
    """The same by looking at every process: for kernels that keep no lists of children."""
    found: list[int] = []
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            with suppress(OSError):
                # After the name in parentheses: state is field 3, the parent 4.
                if int((_PROC / entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry))
    return found


def of_user(user: int) -> list[int]:
    """All processes of a user that are not dead yet."""
    found: list[int] = []
    for entry in os.listdir(_PROC):
        if entry.isdigit():
            with suppress(OSError):
                lines = (_PROC / entry / "status").read_text().splitlines()
                facts = dict(line.split(":\t", 1) for line in lines if line.startswith(("Uid:", "State:")))
                if not facts["State"].startswith("Z") and int(facts["Uid"].split()[0]) == user:
                    found.append(int(entry))
    return found


def usage(pid: int, suspicious_bytes: int) -> Usage:
    """Of the process and all below it. Memory that processes share counts for each of them, unless the sum
    is above ``suspicious_bytes``: then it is shared out."""
    cpu, pids = 0.0, list(below(pid))
    for one in pids:
        with suppress(OSError, ValueError):
            # After the name in parentheses: state is field 3, utime to cstime are 14 to 17.
            fields = (_PROC / str(one) / "stat").read_text().rpartition(")")[2].split()
            cpu += sum(map(int, fields[11:15])) / _TICKS
    memory = sum(_lines(one, "status", ("RssAnon:", "RssShmem:")) for one in pids)
    if memory > suspicious_bytes:
        memory = sum(_lines(one, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for one in pids)
    return Usage(cpu, memory)


def _lines(pid: int, file: str, wanted: tuple[str, ...]) -> int:
    total = 0
    with suppress(OSError, ValueError):
        for line in (_PROC / str(pid) / file).read_text().splitlines():
            if line.startswith(wanted):
                total += int(line.split()[1]) * _KIB
    return total
