"""Zip archives of students, read with limits. Only bytes that really came out are believed."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping

MAX_DIRECTORY_BYTES = 256 * 1024
"""Of an archive's list of files, which is read before anything of it can be judged."""
_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_END = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 0xFFFF
_CLUTTER = ("__MACOSX/", ".git/")
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1


class BadArchive(ValueError):
    """An archive that is refused: its author's affair. ``reason`` is the key of a phrase."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


def is_archive(content: bytes) -> bool:
    """Whether it begins as zip archives do."""
    return content.startswith(_MAGICS)


def unpack(content: bytes, *, max_files: int, max_bytes: int) -> Mapping[str, bytes]:
    """The files of a zip archive by their names in it, which may be any text.

    A folder that holds everything is left away. BadArchive when it is no archive, has links, secret or
    too many files, or more than ``max_bytes`` come out of it.
    """
    _sized(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _bared(_files(archive, max_files, max_bytes))
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OSError) as error:
        if isinstance(error, BadArchive):
            raise
        raise BadArchive("archive_broken") from None
    except (NotImplementedError, RuntimeError):
        raise BadArchive("archive_unreadable") from None


def _files(archive: zipfile.ZipFile, max_files: int, max_bytes: int) -> dict[str, bytes]:
    entries = [
        entry
        for entry in archive.infolist()
        if not entry.is_dir()
        and not entry.filename.startswith(_CLUTTER)
        and not entry.filename.endswith(".DS_Store")
    ]
    if len(entries) > max_files:
        raise BadArchive("archive_files")
    files: dict[str, bytes] = {}
    left = max_bytes
    for entry in entries:
        mode = entry.external_attr >> 16
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BadArchive("archive_link", entry.filename)
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise BadArchive("archive_unreadable")
        if entry.filename in files:
            raise BadArchive("archive_twice", entry.filename)
        with archive.open(entry) as file:
            files[entry.filename] = found = file.read(left + 1)
        left -= len(found)
        if left < 0:
            raise BadArchive("archive_size")
    return files


def _bared(files: dict[str, bytes]) -> dict[str, bytes]:
    tops = {path.partition("/")[0] for path in files}
    if len(tops) != 1 or not all("/" in path for path in files):
        return files
    top = tops.pop()
    return files if top in ("", ".", "..") else {path[len(top) + 1 :]: found for path, found in files.items()}


def _sized(content: bytes) -> None:
    """Looks at the end of an archive, where it says how long its list of files is."""
    at = content.rfind(_END, max(0, len(content) - _END_BYTES - _LONGEST_COMMENT))
    if at < 0 or len(content) < at + _END_BYTES:
        raise BadArchive("archive_broken")
    size: int = struct.unpack_from("<L", content, at + 12)[0]
    if size > MAX_DIRECTORY_BYTES:
        raise BadArchive("archive_files")
