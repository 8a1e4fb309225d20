"""The README's own lines, run as they stand but for the address."""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from cinnabar_local.stack import Stack

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


async def run(script: str, stack: Stack, tenant: str, folder: Path) -> str:
    """Output of a block, in a tenant of its own; the checkout's files are at hand."""
    script = script.replace("127.0.0.1:8080", stack.addresses.envoy).replace("dev.acme.", f"dev.{tenant}.")
    (folder / "examples").symlink_to(README.parent / "examples")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CINNABAR_ADDRESS": stack.addresses.envoy,
        "CINNABAR_TOKEN": f"dev.{tenant}.instructor.grace",
    }
    shell = await asyncio.create_subprocess_exec(
        "sh", "-eu", "-c", script, cwd=folder, env=environment, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(60):
        output, _ = await shell.communicate()
    assert shell.returncode == 0, output.decode()
    return output.decode()


def test_there_is_something_to_run() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ, reason="needs curl, which CI must have"
)
async def test_the_curl_lines(stack: Stack, tenant: str, tmp_path: Path) -> None:
    output = await run(BLOCKS[0], stack, tenant, tmp_path)
    assert '"name":"courses/net/assignments/ports"' in output
    assert '"state":"GRADED"' in output
    assert '"score":2' in output
    assert '"status":"healthy"' in output


@pytest.mark.timeout(120)
async def test_the_cinnabar_lines(stack: Stack, tenant: str, tmp_path: Path) -> None:
    output = await run(BLOCKS[1], stack, tenant, tmp_path)
    assert "5 accepted" in output
    assert "5 graded" in output
    assert "free-text" in output
