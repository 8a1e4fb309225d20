"""Programs as they lie on a disk, as answers: one source, a folder of them, or an archive."""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar.grader.v1.item_pb2 import SourceFile
from cinnabar_client.convert import InvalidInput
from cinnabar_common.errors import FieldViolation

ZIP = "application/zip"
MAX_INLINE_BYTES = 256 * 1024
"""Of all sources that travel in the answer itself; more are uploaded."""
MAX_INLINE_FILES = 50
MAX_BYTES = 16 * 1024 * 1024
"""Of what may be uploaded."""
_PATH = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_MAX_PATH = 200
_SKIPPED = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Program:
    """What is handed in: an answer as it is, or a file that has to be uploaded first."""

    answer: Answer | None = None
    content: bytes = b""
    content_type: str = ""


def read_program(item: str, path: Path) -> Program:
    """The answer to a code item from a source, a ".zip", or a folder with everything below it.

    Hidden files, links, and what compilers and package managers leave behind stay where they are. Raises
    InvalidInput, and OSError for what cannot be read.
    """
    if path.is_dir():
        return _folder(item, path)
    content = path.read_bytes()
    if path.suffix.lower() == ".zip":
        return Program(content=content, content_type=ZIP)
    text = _text(content)
    if text is not None and len(content) <= MAX_INLINE_BYTES:
        return Program(answer=Answer(item=item, text=text))
    return Program(content=content, content_type="text/plain")


def _folder(item: str, folder: Path) -> Program:
    files: dict[str, bytes] = {}
    size = 0
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        size += path.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInput([FieldViolation(item, f"{folder} holds more than {MAX_BYTES} bytes")])
        if not _PATH.fullmatch(name) or len(name) > _MAX_PATH:
            rule = f"{name!r} must be called by letters, digits and ._- only, at most {_MAX_PATH} of them"
            raise InvalidInput([FieldViolation(item, rule)])
        files[name] = path.read_bytes()
    if not files:
        raise InvalidInput([FieldViolation(item, f"{folder} holds no file")])
    texts = {name: _text(content) for name, content in files.items()}
    sources = {name: text for name, text in texts.items() if text is not None}
    if len(sources) == len(files) <= MAX_INLINE_FILES and size <= MAX_INLINE_BYTES:
        code = Answer.Code(files=[SourceFile(path=name, content=text) for name, text in sources.items()])
        return Program(answer=Answer(item=item, code=code))
    return Program(content=_archive(files), content_type=ZIP)


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and not path.is_symlink() and path.is_file():
                yield path


def _archive(files: Mapping[str, bytes]) -> bytes:
    """The same files make the same archive, so that repeating a hand-in repeats its content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
