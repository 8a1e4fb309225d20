"""The data folder of a stack: where it is, who may use it now, what ran in it before."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cinnabar_local.checkout import checkout
from cinnabar_local.identity import Identity

_LEFTOVER_SECONDS = 10.0


class StackIsRunning(RuntimeError):
    """Another runner uses this data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """``path`` exists and is the runner's own. ``note`` says why it is not the folder that was asked for."""

    path: Path
    note: str = ""

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.path / "logs"

    @property
    def state_file(self) -> Path:
        """What ``down`` and ``status`` read."""
        return self.path / "state.json"


def default_folder() -> Path:
    """``.local/`` of the checkout."""
    return checkout() / ".local"


def data_folder(wanted: Path, identity: Identity | None) -> DataFolder:
    """``wanted``, or a folder of its own under the system's temporary one when ``identity`` cannot get there.

    Raises PermissionError when somebody else owns that folder.
    """
    wanted = wanted.absolute()
    if identity is None or identity.can_reach(wanted.parent):
        return DataFolder(path=_own(wanted))
    digest = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    path = _own(Path(tempfile.gettempdir()) / f"cinnabar-{digest}")
    return DataFolder(
        path=path,
        note=f"Postgres must not run as root, and its user cannot enter {wanted}; the data is in {path}",
    )


def _own(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to somebody else")
    path.chmod(0o711)  # Postgres' user passes through it to its own folders
    return path


@contextmanager
def exclusive(folder: DataFolder) -> Generator[None]:
    """Be the only runner of ``folder``, and end what an earlier one left behind. Raises StackIsRunning."""
    with (folder.path / "runner.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackIsRunning(f"a stack runs in {folder.path} already") from None
        _end_leftovers(read_state(folder))
        folder.state_file.unlink(missing_ok=True)
        try:
            yield
        finally:
            folder.state_file.unlink(missing_ok=True)


def write_state(folder: DataFolder, state: Mapping[str, Any]) -> None:
    """Replace the state file at once, so that no reader sees half of it. It holds passwords: mode 0600."""
    partial = folder.state_file.with_suffix(".partial")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(state, indent=2) + "\n", "utf-8")
    partial.replace(folder.state_file)


def read_state(folder: DataFolder) -> dict[str, Any]:
    """The state last written; empty when nothing runs or the file is damaged."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads(folder.state_file.read_text("utf-8"))
    return {}


def fingerprint(pid: int) -> float | None:
    """When process ``pid`` was created: tells it from a later one of that number. None when it is gone."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _end_leftovers(state: Mapping[str, Any]) -> None:
    leftovers: list[psutil.Process] = []
    for entry in state.get("processes", {}).values():
        with suppress(psutil.NoSuchProcess):
            if entry["pid"] and fingerprint(entry["pid"]) == entry["created"]:
                process = psutil.Process(entry["pid"])
                leftovers += [process, *process.children(recursive=True)]
    for process in leftovers:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(leftovers, timeout=_LEFTOVER_SECONDS)
