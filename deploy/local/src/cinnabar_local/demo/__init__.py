"""The demo: the suite comes up, real homework is handed in through Envoy, graded and accounted for."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cinnabar_local.checkout import checkout
from cinnabar_local.demo import homework as sources
from cinnabar_local.demo.homework import Homework
from cinnabar_local.demo.performance import DEFAULT_TIMEOUT_SECONDS, demo
from cinnabar_local.demo.startup import told
from cinnabar_local.folders import default_folder
from cinnabar_local.stack import StackConfig, running
from cinnabar_local.table import PUBLIC_PORT
from cinnabar_local.terminal import run

__all__ = ["demo", "load", "main", "parser"]

_WIDTH = 110  # where the output is no terminal


def main(arguments: Sequence[str]) -> int:
    """Runs the demo of the command line; 0 when everything was graded, 1 when not, 130 when interrupted."""
    return run(_demo(parser().parse_args(arguments)))


def parser() -> argparse.ArgumentParser:
    """The demo's options."""
    options = argparse.ArgumentParser(prog="python -m cinnabar_local demo", description=__doc__)
    add = options.add_argument
    add("--data", type=Path, help="folder of the collected homework (or CINNABAR_DATA)")
    add("--sample", action="store_true", help="the sample that ships, whatever else there is")
    add("--limit", type=int, help="at most so many submissions of each set")
    add("--folder", type=Path, help="data folder of the suite (default: .local/)")
    add("--timeout", type=float, default=DEFAULT_TIMEOUT_SECONDS, help="seconds after which it gives up")
    return options


def load(folder: Path | None = None, *, limit: int | None = None) -> Homework:
    """The collected answers of ``folder``, of CINNABAR_DATA, or of ../shared/data beside the checkout.

    Where none are, the sample. Raises FileNotFoundError when a folder that was named holds none.
    """
    named = folder or (Path(os.environ["CINNABAR_DATA"]) if os.environ.get("CINNABAR_DATA") else None)
    found = sources.collected(named or checkout().parent / "shared" / "data", limit=limit)
    if found is None and named is not None:
        raise FileNotFoundError(f"{named} holds no collected homework")
    return found or sources.sample(limit=limit)


async def _demo(options: argparse.Namespace) -> int:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    limit: int | None = options.limit
    homework = sources.sample(limit=limit) if options.sample else load(options.data, limit=limit)
    console.print("[bold]Cinnabar[/bold]: bringing the suite up")
    config = StackConfig(data_dir=options.folder or default_folder(), supervise=True, envoy_port=PUBLIC_PORT)
    began = time.monotonic()
    with told(console):
        async with running(config) as stack:
            if stack.folder.note:
                console.print(stack.folder.note, markup=False)
            took = time.monotonic() - began
            console.print(f"ready after {took:.1f} s at {stack.addresses.http} (REST and gRPC)")
            console.print()
            counts = f"{len(homework.hand_ins)} submissions with {homework.tasks} items"
            console.print(f"handing in {homework.title}:")
            console.print(f"{counts}, to {len(homework.assignments)} assignments")
            folder: Path | None = options.folder
            up = "make up" if folder is None else f".venv/bin/python -m cinnabar_local --data {folder} up"
            code = await demo(stack, homework, console, timeout=options.timeout, up=up)
            console.print()
            console.print("stopping the suite")
    return code
