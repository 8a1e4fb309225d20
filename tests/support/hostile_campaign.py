"""Runs every hostile program in one sandbox, several at once beside an honest neighbour, and says what came
of it as JSON: ``python -m tests.support.hostile_campaign MECHANISM``."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cinnabar_grader.sandbox import Ending, Limits, Run, choose
from cinnabar_grader.sandbox.client import KeptSandbox
from cinnabar_grader.sandbox.keeper import processes
from tests.support import hostile_files, hostile_kernel, hostile_resources
from tests.support.hostile import ESCAPED, SECRET, Hostile

PROGRAMS: dict[str, Hostile] = hostile_kernel.PROGRAMS | hostile_resources.PROGRAMS | hostile_files.PROGRAMS
SETTLING_SECONDS = 5.0
SLOTS = 8
_PROGRAMS_PER_NEIGHBOUR = 6
_NEIGHBOUR = """
total = sum(n * n for n in range(20_000))
open("total", "w").write(str(total))
print(total)
"""
_TOTAL = str(sum(n * n for n in range(20_000))).encode()


@dataclass
class Report:
    """What a campaign came to."""

    mechanism: str = ""
    strong: bool = False
    missing: list[str] = field(default_factory=list[str])
    complaints: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """What was wrong with the run of each program; no program is missing."""
    without_tools: list[str] = field(default_factory=list[str])
    """Programs that need what is not on this machine."""
    neighbour_runs: int = 0
    neighbour_complaints: list[str] = field(default_factory=list[str])
    left: list[str] = field(default_factory=list[str])
    """Processes, cgroups, folders that were there after the last run, or after the end."""


class Campaign:
    """One sandbox, and the places where its grader keeps what nobody may have."""

    def __init__(self, sandbox: KeptSandbox, folder: Path, listener: str) -> None:
        self.sandbox = sandbox
        self._listener = listener
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o644)
        self._paths = (secret, Path(__file__), Path(__file__).parents[2] / "pyproject.toml")

    def stdin(self, program: Hostile) -> bytes:
        """What it is told."""
        told = {
            "": None,
            "paths": "\n".join(map(str, self._paths)),
            "socket": self._listener,
            "processes": f"{os.getpid()} {self.sandbox.keeper_pid}",
        }[program.asks]
        return program.stdin if told is None else told.encode()

    async def run(self, program: Hostile) -> list[str]:
        """Complaints about one program."""
        async with self.sandbox.folder(program.files) as folder:
            run = await folder.run(
                program.command(self.sandbox.python),
                stdin=self.stdin(program),
                limits=program.limits,
                collect=program.collect,
            )
        return list(complaints(program, run))

    async def neighbour(self, report: Report) -> None:
        """Runs an honest program."""
        limits = Limits(cpu_seconds=5, wall_seconds=60)
        async with self.sandbox.folder({"main.py": _NEIGHBOUR.encode()}) as folder:
            run = await folder.run(
                [self.sandbox.python, "-I", "-S", "main.py"], limits=limits, collect=("total",)
            )
        report.neighbour_runs += 1
        if (run.ending, run.exit_code, run.stdout.strip()) != (Ending.EXITED, 0, _TOTAL):
            report.neighbour_complaints.append(f"{run.ending}: {run.stderr[-300:]!r} {run.reason}")
        elif run.files.get("total") != _TOTAL:
            report.neighbour_complaints.append("its file is not what it wrote")


def complaints(program: Hostile, run: Run) -> list[str]:
    """What was wrong with a run."""
    found: list[str] = []
    said = run.stdout[-400:] + b" | " + run.stderr[-400:] + run.reason.encode()
    if run.ending not in program.endings:
        found.append(f"ended with {run.ending.value} (signal {run.signal}, exit {run.exit_code}): {said!r}")
    if run.ending is Ending.SIGNALED and run.signal not in program.signals:
        found.append(f"ended by signal {run.signal}: {said!r}")
    if run.ending is Ending.EXITED and not program.argv and run.exit_code:
        found.append(f"exited with {run.exit_code}: {said!r}")
    if ESCAPED in run.stdout:
        found.append(f"escaped: {said!r}")
    if program.says not in run.stdout and run.ending is not Ending.TIME_LIMIT:  # it may have been too slow
        found.append(f"did not even try: {said!r}")
    if SECRET.encode() in run.stdout + run.stderr + b"".join(run.files.values()):
        found.append("knows the secret")
    if len(run.stdout) + len(run.stderr) > program.limits.output_bytes:
        found.append("more output than allowed")
    if run.wall_seconds > program.limits.wall_seconds + 10:
        found.append(f"took {run.wall_seconds:.1f} s")
    if not set(program.collected) <= set(run.files) <= set(program.collect):
        found.append(f"collected {sorted(run.files)}")
    return found


async def settled(sandbox: KeptSandbox) -> list[str]:
    """What is left once the kernel had time to bury the last run's dead: at most some seconds."""
    until = time.monotonic() + SETTLING_SECONDS
    while (left := leftovers(sandbox)) and time.monotonic() < until:  # noqa: ASYNC110 - only looking tells
        await asyncio.sleep(0.02)
    return left


def leftovers(sandbox: KeptSandbox) -> list[str]:
    """Processes of boxes, and their folders and cgroups, while nothing runs."""
    keeper = sandbox.keeper_pid
    own = {keeper, *processes.children(keeper)}  # it has a parent of its own, see `keeper.__main__`
    left = [f"process {pid}" for pid in processes.below(keeper) if pid not in own]
    inside = Path(f"/proc/{keeper}/root{tempfile.gettempdir()}")
    # Only root can look there; for others the place is gone with the keeper in any case.
    grounds = inside.glob("cinnabar-sandbox-*/runs/*") if os.geteuid() == 0 else ()
    groups = [group for base in cgroups(f"cinnabar-{keeper}-") for group in base.iterdir() if group.is_dir()]
    return [*left, *(f"folder {ground}" for ground in grounds), *(f"cgroup {group}" for group in groups)]


def cgroups(start: str) -> list[Path]:
    """All whose names begin so; other sandboxes of the machine come and go meanwhile."""
    return [
        Path(folder, name)
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(start)
    ]


def traces(keeper: int) -> list[str]:
    """What a sandbox that was closed has left."""
    left = [str(path) for path in cgroups(f"cinnabar-{keeper}-")]
    return left + ([f"keeper {keeper}"] if alive(keeper) else [])


def alive(pid: int) -> bool:
    """Whether a process is there and not dead; who collects it is not our business."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def campaign(mechanism: str, chosen: list[str]) -> Report:
    """All of it."""
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="cinnabar-campaign-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.chmod(folder, 0o755)
        name = f"cinnabar-campaign-{os.getpid()}"
        listener.bind(f"\0{name}")
        listener.listen()
        os.environ["SECRET"] = SECRET
        async with choose(mechanisms=(mechanism,), slots=SLOTS) as sandbox:
            keeper = sandbox.keeper_pid
            report.mechanism, report.strong = sandbox.mechanism, sandbox.strong
            report.missing = list(sandbox.missing)
            await _fight(Campaign(sandbox, Path(folder), name), chosen, report)
            if sandbox.keeper_pid != keeper:
                report.left.append("the keeper did not survive")
            report.left += await settled(sandbox)
        report.left += traces(keeper)
    return report


async def _fight(one: Campaign, chosen: list[str], report: Report) -> None:
    room = asyncio.Semaphore(SLOTS)

    async def fight(name: str, program: Hostile) -> None:
        async with room:
            report.complaints[name] = await one.run(program)

    async with asyncio.TaskGroup() as group:
        for number, (name, program) in enumerate(PROGRAMS.items()):
            if chosen and name not in chosen:
                continue
            if program.needs and shutil.which(program.needs) is None:
                report.without_tools.append(name)
                continue
            group.create_task(fight(name, program), name=name)
            if number % _PROGRAMS_PER_NEIGHBOUR == 0:
                group.create_task(_among(room, one, report), name=f"neighbour of {name}")


async def _among(room: asyncio.Semaphore, one: Campaign, report: Report) -> None:
    async with room:
        await one.neighbour(report)


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(campaign(sys.argv[1], sys.argv[2:]))), sys.stdout)
