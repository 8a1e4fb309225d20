"""One table out of one run: on the screen and in ``build/bench.json``."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

REPORT = Path("build/bench.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One measured number. ``bar`` is what it should reach; ``ratio`` is ours to the peer's."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    bar: float | None = None
    peer: str | None = None
    ratio: float | None = None

    @property
    def reached(self) -> str:
        """ "yes", "no", or "" where there is no bar."""
        if self.bar is None:
            return ""
        return (
            "yes" if (self.value >= self.bar) == (self.better == "higher") or self.value == self.bar else "no"
        )


def machine() -> dict[str, str | int]:
    """What the figures were taken on."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "fsync": "on",
    }


def write(results: Sequence[Result], output: Path) -> None:
    """Writes the report."""
    output.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "results": [asdict(result) for result in results]}
    output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(results: Sequence[Result]) -> None:
    """Prints the table."""
    print(f"\n{'name':42} {'value':>12} {'unit':10} {'bar':>9} {'reached':8} {'peer':24} {'ratio':>6}")
    for result in results:
        bar = "" if result.bar is None else f"{result.bar:g}"
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        print(
            f"{result.name:42} {result.value:12,.2f} {result.unit:10} {bar:>9} {result.reached:8} "
            f"{result.peer or '':24} {ratio:>6}"
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
