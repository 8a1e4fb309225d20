"""What a box costs: a trivial Python program inside one, against the same outside.

Both are started by turns from one process and timed by the clock, from the call to the result, so that
what else the machine does falls on both. The rate has one run more under way than there are slots.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from cinnabar_grader.sandbox import Ending, Folder, choose

OVERHEAD = "sandbox_overhead_ms"
RATE = "sandbox_runs_per_second"
NAMES = (OVERHEAD, RATE)
OVERHEAD_BAR = 40.0
RATE_BAR = 20.0
PAIRS = 100
RUNS = 200
_LEAST = 10


async def measure(wanted: set[str], rounds: int, scale: float) -> dict[str, list[float]]:
    """A value of each round by name; with a small ``scale`` of fewer runs."""
    found: dict[str, list[float]] = {name: [] for name in NAMES if name in wanted}
    async with choose() as sandbox, sandbox.folder({}) as folder:
        print(f"  in {sandbox.mechanism}" + "".join(f", without {one}" for one in sandbox.missing))
        trivial = (sandbox.python, "-I", "-S", "-c", "pass")
        for _ in range(rounds):
            if OVERHEAD in wanted:
                found[OVERHEAD].append(await _overhead(folder, trivial, max(_LEAST, int(PAIRS * scale))))
            if RATE in wanted:
                count = max(_LEAST, int(RUNS * scale))
                found[RATE].append(await _rate(folder, trivial, count, at_once=sandbox.slots + 1))
    return found


async def _overhead(folder: Folder, argv: Sequence[str], pairs: int) -> float:
    inside: list[float] = []
    outside: list[float] = []
    for _ in range(pairs):
        began = time.perf_counter()
        await _boxed(folder, argv)
        between = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, env={})
        await process.wait()
        outside.append(time.perf_counter() - between)
        inside.append(between - began)
    print(
        f"  {1000 * statistics.median(inside):.1f} ms inside, {1000 * statistics.median(outside):.1f} outside"
    )
    return 1000 * (statistics.median(inside) - statistics.median(outside))


async def _rate(folder: Folder, argv: Sequence[str], runs: int, *, at_once: int) -> float:
    left = iter(range(runs))

    async def one_after_the_other() -> None:
        for _ in left:
            await _boxed(folder, argv)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())
    return runs / (time.perf_counter() - began)


async def _boxed(folder: Folder, argv: Sequence[str]) -> None:
    run = await folder.run(argv)
    if run.ending is not Ending.EXITED or run.exit_code:
        raise RuntimeError(f"a trivial program ended with {run.ending.value}: {run.reason}")
