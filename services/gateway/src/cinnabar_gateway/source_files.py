"""Files of programs, as students and instructors send them; the rules are those of item.proto."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cinnabar.grader.v1.item_pb2 import SourceFile
from cinnabar_common.errors import FieldViolation

MAX_FILES = 50
MAX_PATH = 200
PATH_RULE = (
    "must be a relative path with / of parts [A-Za-z0-9._-] that are not . or .., "
    f"at most {MAX_PATH} characters"
)
_PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII)


def is_path(path: str) -> bool:
    """Whether ``path`` may name a file of a program."""
    return len(path) <= MAX_PATH and _PATH.fullmatch(path) is not None


def fits(files: Sequence[SourceFile], *, max_bytes: int) -> bool:
    """Whether there is at least one file and the files break no rule of ``violations``."""
    return bool(files) and all(file.path for file in files) and not any(violations(files, "", max_bytes))


def violations(files: Sequence[SourceFile], at: str, max_bytes: int) -> Iterator[FieldViolation]:
    """Every rule that a list of files breaks; absent lists and paths are reported as required fields.

    ``max_bytes`` is for the UTF-8 of all contents together.
    """
    if len(files) > MAX_FILES:
        yield FieldViolation(at, f"must be at most {MAX_FILES} files")
        return
    if sum(len(file.content.encode()) for file in files) > max_bytes:
        yield FieldViolation(at, f"must be at most {max_bytes} bytes of UTF-8 together")
    folders = {folder for file in files for folder in _folders(file.path)}
    seen: set[str] = set()
    for index, file in enumerate(files):
        path = file.path
        if path and not is_path(path):
            yield FieldViolation(f"{at}[{index}].path", PATH_RULE)
        elif path in seen:
            yield FieldViolation(f"{at}[{index}].path", f"must be unique, but {path} is there twice")
        elif path in folders:
            yield FieldViolation(f"{at}[{index}].path", f"must not be a folder of another file: {path}")
        if path:
            seen.add(path)


def _folders(path: str) -> Iterator[str]:
    if len(path) > MAX_PATH:
        return
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
