"""From the answer of a student to the files that lie in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cinnabar_grader.code.archives import BadArchive, unpack
from cinnabar_grader.graders import ArchiveAnswer, CodeAnswer

MAX_FILES = 50
MAX_PATH = 200
MAX_BYTES = 16 * 1024 * 1024
"""Of all files of a student together, unpacked."""
_PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII)


class Refused(Exception):
    """The files of a student cannot be used, and why: the key of a phrase and its words."""

    def __init__(self, reason: str, **words: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.words = words


def is_path(path: str) -> bool:
    """Whether ``path`` may name a file of a program."""
    return len(path) <= MAX_PATH and _PATH.fullmatch(path) is not None


def student_files(answer: str | CodeAnswer | ArchiveAnswer, *, main: str) -> dict[str, bytes]:
    """The files of an answer by path; a bare text is the file ``main``. Refused.

    Takes as long as 16 MiB take to be unpacked.
    """
    match answer:
        case str():
            files = {main: answer.encode("utf-8", "surrogatepass")}
        case CodeAnswer():
            files = {path: text.encode("utf-8", "surrogatepass") for path, text in answer.files.items()}
        case ArchiveAnswer():
            try:
                files = dict(unpack(answer.content, max_files=MAX_FILES, max_bytes=MAX_BYTES))
            except BadArchive as error:
                raise Refused(error.reason, path=error.path[:MAX_PATH], most=MAX_FILES) from None
    if not any(content.strip() for content in files.values()):
        raise Refused("no_answer")
    if len(files) > MAX_FILES:
        raise Refused("archive_files", most=MAX_FILES)
    if sum(map(len, files.values())) > MAX_BYTES:
        raise Refused("archive_size")
    for path in files:
        if not is_path(path):
            raise Refused("file_path", path=path[:MAX_PATH])
    if clash := next((folder for path in files for folder in folders(path) if folder in files), None):
        raise Refused("file_path", path=clash)
    return files


def merged(own: Mapping[str, bytes], given: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files of a student beside those of the item, which win where both cannot be."""
    taken = set(given)
    taken_folders = {folder for path in given for folder in folders(path)}
    kept = {
        path: content
        for path, content in own.items()
        if path not in taken and path not in taken_folders and taken.isdisjoint(folders(path))
    }
    return kept | dict(given)


def folders(path: str) -> Iterator[str]:
    """The folders that ``path`` lies in, the outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
