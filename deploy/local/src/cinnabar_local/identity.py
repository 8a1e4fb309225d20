"""Who runs Postgres: it refuses to run as root, so root lends it an unprivileged user."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

_CANDIDATES = ("nobody", "postgres", "daemon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user and its group, by number."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give one file or folder to this user."""
        os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether every existing folder on the way to ``path``, itself included, lets this user pass."""
        resolved = path.resolve()
        return all(self._may_pass(folder) for folder in (resolved, *resolved.parents) if folder.exists())

    def _may_pass(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def unprivileged() -> Identity | None:
    """The user that Postgres gets; None for an ordinary user, who needs no other.

    Raises LookupError when root finds no such user on the system.
    """
    if os.geteuid() != 0:
        return None
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Identity(uid=entry.pw_uid, gid=entry.pw_gid)
    raise LookupError(
        "Postgres refuses to run as root, and none of these users exist: " + ", ".join(_CANDIDATES)
    )
