"""Files that go into a box and come out of it. What comes out was named by somebody who means harm:
no link is followed, and nothing is opened that could block."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEPTH_LIMIT = 32
"""Folders inside each other that are looked into."""


def put(root: Path, files: Mapping[str, bytes], owner: int | None) -> None:
    """Writes ``files`` under an empty folder, for ``owner`` when one is given."""
    made: set[Path] = set()
    for name, content in files.items():
        path = root / name
        for folder in reversed(path.parents):
            if folder in made or not folder.is_relative_to(root) or folder == root:
                continue
            folder.mkdir(exist_ok=True)
            made.add(folder)
            _give(folder, owner)
        with path.open("xb") as file:
            file.write(content)
        path.chmod(0o755)
        _give(path, owner)


def take(root: int, name: str, limit: int) -> bytes | None:
    """Content of the regular file ``name`` under the folder open as ``root``, when it is one of at most
    ``limit`` bytes and no part of its name is a link."""
    *folders, last = name.split("/")
    opened: list[int] = []
    try:
        parent = root
        for folder in folders:
            parent = os.open(folder, _FOLDER, dir_fd=parent)
            opened.append(parent)
        return _content(last, parent, limit)
    except (OSError, ValueError):
        return None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def everything(root: int, limit: int, count: int) -> dict[str, bytes] | None:
    """All regular files under ``root`` by name; None when they have more than ``limit`` bytes together or
    are more than ``count``."""
    found: dict[str, bytes] = {}
    left = limit
    for name, folder, prefix in _walk(root, "", DEPTH_LIMIT):
        content = _content(name, folder, left)
        if content is None or len(found) == count:
            return None
        left -= len(content)
        found[prefix + name] = content
    return found


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, int, str]]:
    for entry in os.listdir(folder):
        try:
            entry.encode()
            kind = os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode
        except (OSError, UnicodeEncodeError):
            continue
        if stat.S_ISREG(kind):
            yield entry, folder, prefix
        elif stat.S_ISDIR(kind) and depth:
            try:
                with _opened(entry, folder) as inner:
                    yield from _walk(inner, f"{prefix}{entry}/", depth - 1)
            except OSError:
                continue


@contextmanager
def _opened(name: str, folder: int) -> Generator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(name: str, folder: int, limit: int) -> bytes | None:
    try:
        descriptor = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return None
    with closing(os.fdopen(descriptor, "rb")) as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
            return None
        return file.read(limit + 1)[:limit]


def _give(path: Path, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner)
