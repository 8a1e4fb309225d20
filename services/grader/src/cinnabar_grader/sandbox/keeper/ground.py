"""Where boxes stand: a mount namespace of the keeper's own, so that nothing in it is seen outside, and
nothing is left when the keeper is gone, however it went.

    {ground}/system     what a box sees of the machine, put together once, read-only
    {ground}/tools      bubblewrap, where every user of a box can reach it
    {ground}/runs/{n}   one run: a tmpfs of its own with box, tmp and shm
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cinnabar_grader.sandbox.keeper import kernel

PREFIX = "cinnabar-sandbox-"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
    "/etc/ssl/openssl.cnf",
)  # fmt: skip
JAVA_SETTINGS = "java*"
"""Folders of /etc without which a packaged Java does not start."""
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_MADE = {
    "passwd": "student:x:1000:1000:student:/box:/bin/sh\n",
    "group": "student:x:1000:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hosts": "127.0.0.1 localhost\n",
}
_YOUNG_SECONDS = 60
"""A folder that is younger may not have been locked yet by who made it."""
_FIRST_USER = 52_000
"""Users of boxes: in the range that neither people, packages nor services get (30000 to 59999)."""
USERS_PER_KEEPER = 64
_BLOCKS = 100


class Ground:
    """Made once per keeper. OSError when not even a folder can be had."""

    def __init__(self, *, namespaces: bool) -> None:
        collect_stale(Path(tempfile.gettempdir()))
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _locked(self.root / "lock")
        self.superuser = os.geteuid() == 0
        self.private = namespaces and _leave(self.superuser)
        """Whether mounts can be made, and are nobody else's business."""
        if self.private:
            kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
            flags = kernel.MS_NOSUID | kernel.MS_NODEV
            kernel.mount("tmpfs", str(self.root), "tmpfs", flags, "size=64m,nr_inodes=20000,mode=0711")
        self.root.chmod(0o711)
        for name in ("system", "tools", "runs"):
            (self.root / name).mkdir(mode=0o755)
            (self.root / name).chmod(0o755)
        (self.root / "runs").chmod(0o711)
        self.devices = self._make_devices() if self.private and self.superuser else None
        """A /dev for all boxes, mounted once; None where no device can be made."""
        self._users, self._users_lock = self._claim_users() if self.superuser else (None, None)
        self._made = 0

    def user(self, slot: int) -> int | None:
        """The user of a slot's runs; None when it is the keeper's own."""
        return None if self._users is None else self._users + slot

    def build_system(self, trees: Sequence[str]) -> None:
        """Puts the system together; only on private ground."""
        system = self.root / "system"
        for path in ("box", "tmp", "proc", "dev", "etc", "run", "var"):
            (system / path).mkdir()
        shown = [Path(path) for path in SYSTEM]
        shown += [path for path in map(Path, trees) if not path.is_relative_to("/usr")]
        for path in shown:
            place = system / path.relative_to("/")
            if path.is_symlink():
                place.symlink_to(path.readlink())
            elif path.is_dir() and not place.exists():
                place.mkdir(parents=True)
                kernel.bind_read_only(str(path), str(place))
        for path in (*map(Path, SETTINGS), *Path("/etc").glob(JAVA_SETTINGS)):
            _copy(path, system / path.relative_to("/"))
        for name, content in _MADE.items():
            (system / "etc" / name).write_text(content)

    def install(self, bubblewrap: str) -> str:
        """Copies the program, and libraries that a wheel brings beside its package; says where it is."""
        source = Path(bubblewrap)
        tools = self.root / "tools"
        package = source.parent.parent
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():  # its run path is ../../{package}.libs
            shutil.copytree(libraries, tools / libraries.name)
        place = tools / package.name / source.parent.name / source.name
        place.parent.mkdir(parents=True)
        shutil.copyfile(source, place)
        for path in (place, *place.parents[:2]):
            path.chmod(0o755)
        for path in tools.rglob("*.so*"):
            path.chmod(0o755)
        return str(place)

    def new_run(self, slot: int, *, size: int, count: int) -> RunFolder:
        """An empty place for one run: at most ``size`` bytes and ``count`` files, on private ground."""
        self._made += 1
        path = self.root / "runs" / str(self._made)
        path.mkdir(mode=0o711)
        user = self.user(slot)
        if self.private:
            options = f"size={size},nr_inodes={count},mode=0711"
            kernel.mount("tmpfs", str(path), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        return RunFolder(path, user, mounted=self.private)

    def remove(self) -> None:
        """Leaves nothing."""
        if self.private:
            kernel.unmount(str(self.root))
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)
        if self._users_lock is not None:
            self._users_lock.close()

    def _make_devices(self) -> Path | None:
        place = self.root / "devices"
        place.mkdir()
        read_only = kernel.MS_NOSUID | kernel.MS_RDONLY
        kernel.mount("tmpfs", str(place), "tmpfs", kernel.MS_NOSUID, "size=64k,nr_inodes=64,mode=0755")
        try:
            for name, numbers in _DEVICES.items():
                os.mknod(place / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
                (place / name).chmod(0o666)
        except PermissionError:
            kernel.unmount(str(place))
            return None
        (place / "shm").mkdir()
        for name, target in _DEVICE_LINKS.items():
            (place / name).symlink_to(target)
        kernel.mount("none", str(place), None, kernel.MS_REMOUNT | kernel.MS_BIND | read_only)
        return place

    def _claim_users(self) -> tuple[int | None, socket.socket | None]:
        """The first of a block of users that no other keeper of the machine has; None when this process may
        not become another user."""
        if not _may_become(_FIRST_USER):
            return None, None
        for block in range(_BLOCKS):
            first = _FIRST_USER + block * USERS_PER_KEEPER
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lock.bind(f"\0{PREFIX}users-{first}")  # is free again when this process is gone
            except OSError:
                lock.close()
            else:
                return first, lock
        return None, None


class RunFolder:
    """The files of one run: ``box`` is its working directory, ``tmp`` and ``shm`` its other places."""

    def __init__(self, path: Path, user: int | None, *, mounted: bool) -> None:
        self.path = path
        self.user = user
        self._mounted = mounted
        for name in ("box", "tmp", "shm"):
            (path / name).mkdir(mode=0o700)
            if user is not None:
                os.chown(path / name, user, user)
        # Opened before anybody could put something else in its place.
        self.opened = os.open(self.box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    @property
    def box(self) -> Path:
        """The working directory."""
        return self.path / "box"

    def remove(self) -> None:
        """Leaves nothing; every process of the run must be gone."""
        os.close(self.opened)
        if self._mounted:
            kernel.unmount(str(self.path))
            self.path.rmdir()
            return
        shutil.rmtree(self.path, onerror=_open_up)


def collect_stale(folder: Path) -> int:
    """Removes what keepers that are no more have left in ``folder``; returns how much."""
    count = 0
    for path in folder.glob(f"{PREFIX}*/"):
        try:
            about = path.lstat()
            if about.st_uid != os.geteuid() or path.is_symlink():
                continue
            if time.time() - about.st_mtime < _YOUNG_SECONDS:
                continue
            lock = _locked(path / "lock")
        except OSError:
            continue
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        count += 1
    return count


def open_way(paths: Sequence[str]) -> None:
    """Makes ``paths`` reachable for every user, where a folder above them is closed to others: that folder
    is covered, and only they are seen in it. In a mount namespace that nobody else is in."""
    opened = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in map(Path, paths) if _closed(path)}
    for place in {_closed(path) for path in opened}:
        kernel.mount("tmpfs", str(place), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k,mode=0755")
    for path, descriptor in opened.items():
        path.mkdir(parents=True, exist_ok=True)
        kernel.mount(f"/proc/self/fd/{descriptor}", str(path), None, kernel.MS_BIND | kernel.MS_REC)
        os.close(descriptor)


def _closed(path: Path) -> Path | None:
    """The uppermost folder above a path that others may not enter."""
    above = reversed(path.parents)
    return next((one for one in above if not one.stat().st_mode & stat.S_IXOTH), None)


def _leave(superuser: bool) -> bool:
    """Leaves the machine's mount namespace; False when this process may not."""
    leave = _leave_as_root if superuser else _leave_as_user
    pid = os.fork()
    if pid == 0:  # half of it would be worse than none: tried by somebody else
        try:
            leave()
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        return False
    leave()
    return True


def _leave_as_root() -> None:
    kernel.unshare(kernel.CLONE_NEWNS)


def _leave_as_user() -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _locked(path: Path) -> int:
    """BlockingIOError when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _may_become(user: int) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(user, user, user)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def _copy(source: Path, place: Path) -> None:
    try:
        place.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        elif source.exists():
            shutil.copyfile(source, place)
            place.chmod(0o644)
    except (shutil.Error, OSError):  # what cannot be read, no program needs
        return


def _open_up(function: object, path: str, _error: object) -> None:
    """Removes what a program made unreadable."""
    del function
    parent = Path(path).parent
    for place in (parent, Path(path)):
        if not place.is_symlink() and place.is_dir():
            place.chmod(0o700)
    if Path(path).is_dir() and not Path(path).is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)
