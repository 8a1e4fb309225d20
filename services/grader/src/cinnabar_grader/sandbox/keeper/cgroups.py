"""Limits and sums over all processes of a run: cgroup v2, else v1, else none.

The cpu controller is there for its default: all processes of a box weigh as much as one of the grader's.

Folders of cgroups are named after their keeper and locked by it; those of keepers that are no more are
collected by the next one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

PREFIX = "cinnabar-"
_MOUNT = Path("/sys/fs/cgroup")
_V1 = ("memory", "pids", "cpu", "cpuacct", "freezer")
_V1_NEEDED = ("memory", "pids", "cpuacct")
_V2 = ("memory", "pids", "cpu")


class Group(Protocol):
    """The cgroup of one run."""

    def doors(self) -> Sequence[int]:
        """Descriptors of files: a process that writes "0" to each is inside."""
        ...

    def cpu_seconds(self) -> float:
        """Used by all processes so far."""
        ...

    def memory_bytes(self) -> int:
        """The most at once so far."""
        ...

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process for want of memory."""
        ...

    def kill(self) -> None:
        """Kills every process."""
        ...

    def remove(self) -> None:
        """Once every process is gone."""
        ...


class Groups(Protocol):
    """Makes cgroups."""

    version: str

    def new(self, name: str, *, memory_bytes: int, processes: int) -> Group:
        """OSError when it cannot be made."""
        ...

    def close(self) -> None:
        """Removes all."""
        ...


class _Folder:
    """One directory of a cgroup file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def write(self, name: str, value: object) -> None:
        (self.path / name).write_text(f"{value}\n")

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def number(self, name: str, key: str) -> int:
        for line in self.read(name).splitlines():
            found, _, value = line.partition(" ")
            if found == key:
                return int(value)
        return 0

    def door(self) -> int:
        return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def kill(self) -> None:
        _kill(self.path)

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self.path.rmdir()


class _V2Group:
    def __init__(self, path: Path, memory_bytes: int, processes: int) -> None:
        self._folder = _Folder(path)
        self._folder.write("memory.max", memory_bytes)
        with suppress(OSError):
            self._folder.write("memory.swap.max", 0)
        with suppress(OSError):
            self._folder.write("memory.oom.group", 1)
        self._folder.write("pids.max", processes)

    def doors(self) -> Sequence[int]:
        return (self._folder.door(),)

    def cpu_seconds(self) -> float:
        return self._folder.number("cpu.stat", "usage_usec") / 1e6

    def memory_bytes(self) -> int:
        try:
            return int(self._folder.read("memory.peak"))
        except FileNotFoundError:  # before Linux 5.19
            return 0

    def out_of_memory(self) -> bool:
        return self._folder.number("memory.events", "oom_kill") > 0

    def kill(self) -> None:
        try:
            self._folder.write("cgroup.kill", 1)
        except FileNotFoundError:  # before Linux 5.14
            self._folder.write("cgroup.freeze", 1)
            self._folder.kill()
            self._folder.write("cgroup.freeze", 0)

    def remove(self) -> None:
        self._folder.remove()


class _V1Group:
    def __init__(self, paths: dict[str, Path], memory_bytes: int, processes: int) -> None:
        self._folders: dict[str, _Folder] = {}
        try:
            for name, path in paths.items():
                self._folders[name] = _Folder(path)
            memory = self._folders["memory"]
            memory.write("memory.limit_in_bytes", memory_bytes)
            with suppress(OSError):  # only where swap is counted
                memory.write("memory.memsw.limit_in_bytes", memory_bytes)
            self._folders["pids"].write("pids.max", processes)
        except OSError:
            self.remove()
            raise

    def doors(self) -> Sequence[int]:
        return [folder.door() for folder in self._folders.values()]

    def cpu_seconds(self) -> float:
        return int(self._folders["cpuacct"].read("cpuacct.usage")) / 1e9

    def memory_bytes(self) -> int:
        return int(self._folders["memory"].read("memory.max_usage_in_bytes"))

    def out_of_memory(self) -> bool:
        return self._folders["memory"].number("memory.oom_control", "oom_kill") > 0

    def kill(self) -> None:
        freezer = self._folders.get("freezer")
        if freezer is not None:
            freezer.write("freezer.state", "FROZEN")
        self._folders["pids"].kill()
        if freezer is not None:
            freezer.write("freezer.state", "THAWED")

    def remove(self) -> None:
        for folder in self._folders.values():
            folder.remove()


class V2Groups:
    """Cgroups beneath a folder that was delegated to us. OSError when it was not."""

    version = "cgroup v2"

    def __init__(self, parent: Path) -> None:
        wanted = " ".join(f"+{name}" for name in _V2)
        controls = parent / "cgroup.subtree_control"
        if not set(_V2) <= set(controls.read_text().split()):
            try:
                controls.write_text(wanted)
            except OSError:
                _move_down(parent)
                controls.write_text(wanted)
        collect_stale(parent)
        self._root = _Folder(parent / _own_name())
        self._lock = _lock(self._root.path)
        self._root.write("cgroup.subtree_control", wanted)

    def new(self, name: str, *, memory_bytes: int, processes: int) -> Group:
        return _V2Group(self._root.path / name, memory_bytes, processes)

    def close(self) -> None:
        _remove_tree(self._root.path)
        os.close(self._lock)


class V1Groups:
    """Cgroups beneath our own in each hierarchy. OSError when we may not make any."""

    version = "cgroup v1"

    def __init__(self, parents: dict[str, Path]) -> None:
        if missing := [name for name in _V1_NEEDED if name not in parents]:
            raise FileNotFoundError(f"no controller {', '.join(missing)}")
        name = _own_name()
        self._roots: dict[str, _Folder] = {}
        self._locks: list[int] = []
        try:
            for controller, parent in parents.items():
                collect_stale(parent)
                self._roots[controller] = root = _Folder(parent / name)
                self._locks.append(_lock(root.path))
        except OSError:
            self.close()
            raise

    def new(self, name: str, *, memory_bytes: int, processes: int) -> Group:
        paths = {controller: root.path / name for controller, root in self._roots.items()}
        return _V1Group(paths, memory_bytes, processes)

    def close(self) -> None:
        for root in self._roots.values():
            _remove_tree(root.path)
        for lock in self._locks:
            os.close(lock)


def find(delegated: str = "", mount: Path = _MOUNT, own: str | None = None) -> Groups | None:
    """The best that works here: a v2 folder (``delegated``, else our own), else v1, else None.

    ``own`` is the content of /proc/self/cgroup.
    """
    lines = (own if own is not None else Path("/proc/self/cgroup").read_text()).splitlines()
    places = {kind: path for _, kind, path in (line.split(":", 2) for line in lines)}
    unified = mount / "unified" if (mount / "unified").is_dir() else mount
    parent = Path(delegated) if delegated else unified / places.get("", "/").lstrip("/")
    with suppress(OSError):
        if set(_V2) <= set((parent / "cgroup.controllers").read_text().split()):
            return V2Groups(parent)
    parents: dict[str, Path] = {}
    for kinds, path in places.items():
        for controller in set(kinds.split(",")) & set(_V1):
            # In a container the mount may show our own cgroup as its root.
            for folder in (mount / controller / path.lstrip("/"), mount / controller):
                if (folder / "cgroup.procs").exists():
                    parents[controller] = folder
                    break
    with suppress(OSError):
        return V1Groups(parents)
    return None


def collect_stale(parent: Path) -> int:
    """Removes the cgroups of keepers that are no more; returns how many."""
    count = 0
    for path in parent.glob(f"{PREFIX}*-*/"):
        try:
            lock = _lock(path)
        except OSError:
            continue
        _remove_tree(path)
        os.close(lock)
        count += 1
    return count


def _own_name() -> str:
    return f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def _move_down(parent: Path) -> None:
    """A v2 group that limits others may hold no process itself: ours go to a group beneath it."""
    leaf = parent / "cinnabar"
    leaf.mkdir(exist_ok=True)
    for line in (parent / "cgroup.procs").read_text().splitlines():
        with suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(line)


def _remove_tree(path: Path) -> None:
    """Kills what is in there, and removes it as far as the kernel lets us."""
    with suppress(FileNotFoundError):
        for entry in path.iterdir():
            if entry.is_dir():
                _remove_tree(entry)
    with suppress(FileNotFoundError):
        _kill(path)
    with suppress(OSError):
        path.rmdir()


def _kill(path: Path) -> None:
    for line in (path / "cgroup.procs").read_text().splitlines():
        # 0 is a process of another pid namespace; to kill(2) it would be ourselves.
        if pid := int(line):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
