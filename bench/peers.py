"""Runs the peers' own scripts, each in an environment of its own, on a Valkey of their own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cinnabar_local.credentials import Credentials
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import Valkey

FOLDER = Path("../shared/peers")
ENVIRONMENTS = Path("build/peers").absolute()
DOCUMENT_DESIGN = "seed"
# Their pins of redis-py differ.
REQUIREMENTS = {
    "celery": ("celery[redis]", "packaging", "uvloop"),
    "taskiq": ("taskiq<0.12", "taskiq-redis", "pydantic", "uvloop"),
    "dramatiq": ("dramatiq[redis]", "arq", "fastapi", "uvicorn", "httptools", "aiohttp", "uvloop"),
}
PEERS = {
    "celery": "celery",
    "taskiq": "taskiq",
    "dramatiq": "dramatiq",
    "arq": "dramatiq",
    DOCUMENT_DESIGN: "dramatiq",
}
_LINE = re.compile(r"^(\w+)\s+([\d.]+)/s\s+p50\s+([\d.]+) ms", re.MULTILINE)
RUN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What a peer's script printed."""

    per_second: float
    p50_ms: float


def present() -> bool:
    """Whether the peers' scripts are there."""
    return (FOLDER / "run.py").exists()


async def prepare() -> None:
    """Makes the environments that are missing."""
    for name, packages in REQUIREMENTS.items():
        folder = ENVIRONMENTS / name
        if (folder / "ready").exists():
            continue
        uv = Path(sys.executable).with_name("uv")
        await _run(str(uv), "venv", "-q", "--clear", "--python", sys.executable, str(folder))
        await _run(str(uv), "pip", "install", "-q", "--python", str(folder / "bin/python"), *packages)
        (folder / "ready").touch()


@asynccontextmanager
async def valkey() -> AsyncGenerator[str]:
    """A Valkey for the peers; yields its URL without a database, as their scripts want it."""
    folder = ENVIRONMENTS / "valkey"
    server = Valkey(name="valkey", folder=folder, port=Ports().of("valkey"), password=Credentials().redis)
    async with serving(server.process(), logs=folder / "logs"):
        yield server.url.rpartition("/")[0]


async def run(peer: str, redis_url: str, tasks: int) -> PeerRun:
    """Runs one peer on ``tasks`` tasks. RuntimeError when its script fails."""
    python = ENVIRONMENTS / PEERS[peer] / "bin/python"
    output = await _run(
        str(python), "run.py", str(tasks), peer, cwd=FOLDER, env=os.environ | {"REDIS": redis_url}
    )
    line = _LINE.search(output)
    if line is None:
        raise RuntimeError(f"{peer}: {output[-500:]}")
    return PeerRun(float(line[2]), float(line[3]))


async def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    environment = (env or dict(os.environ)) | {"PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output = (await process.stdout.read()).decode(errors="replace")
            code = await process.wait()
    except BaseException:
        process.kill()
        raise
    if code != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {code}: {output[-500:]}")
    return output
