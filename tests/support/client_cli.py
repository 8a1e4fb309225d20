"""The command line as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from tests.support.client_fixtures import World

INSTRUCTOR = "dev.t.instructor.ann"
_HOME = tempfile.TemporaryDirectory(prefix="cinnabar-home-")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """A JSON object for each line of stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def problem(self) -> dict[str, Any]:
        """The JSON error on stderr."""
        return json.loads(self.err)["error"]


def environment(address: str, token: str = INSTRUCTOR) -> dict[str, str]:
    """What the command finds around it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CINNABAR_")}
    return clean | {
        "CINNABAR_ADDRESS": address,
        "CINNABAR_TOKEN": token,
        "CINNABAR_HOME": _HOME.name,
        "COLUMNS": "100",
    }


async def start(address: str, *arguments: str, token: str = INSTRUCTOR) -> asyncio.subprocess.Process:
    """Starts a command."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys; from cinnabar_client.cli import main; sys.exit(main())"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(address, token),
    )


async def run(where: World | str, *arguments: str, token: str = INSTRUCTOR, seconds: float = 30.0) -> Ran:
    """Runs a command to its end, which never is a trace."""
    process = await start(where if isinstance(where, str) else where.address, *arguments, token=token)
    async with asyncio.timeout(seconds):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return Ran(process.returncode, out.decode(), err.decode())
