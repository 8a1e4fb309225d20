"""Texts of programs and compilers, made fit for a grade."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from cinnabar_grader.graders import TestResult

MAX_TEXT = 4 * 1024
"""Bytes of UTF-8 of one message or output."""
MAX_TEXTS = 128 * 1024
"""Bytes of all messages and outputs of a grade; a grade may have 256 KiB altogether."""
SHORT = 200
"""What is left of each message when there are too many long ones."""
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+")
_OURS = re.compile(
    r"^ +at .*\b(?:node:|\[eval\]).*\n?|^Node\.js v[\d.]+$\n?"
    r'|^  File "<(?:string|frozen [\w.]+)>", line \d+, in \S+\n(?:    .*\n)*',
    re.MULTILINE,
)
"""What stands above a program and is not its student's: Node's own files, and how we began."""
_LINE_OF_MAIN = re.compile(r'(?<=File "main\.py", line )\d+')


def cut(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """The beginning of a text, at most ``limit`` bytes of UTF-8; what is no character is replaced."""
    if isinstance(text, bytes):
        text = text[: limit + 4].decode("utf-8", "replace")
    content = text[: limit + 1].encode("utf-8", "replace")
    if len(content) <= limit:
        return content.decode()
    return content[: limit - 3].decode("utf-8", "ignore") + "…"


def last(content: bytes, limit: int = MAX_TEXT // 2) -> bytes:
    """The end of what a program said, from the beginning of a line where that is near."""
    if len(content) <= limit:
        return content
    end = content[-limit:]
    head, newline, rest = end.partition(b"\n")
    return rest if newline and len(head) < limit // 2 else end


def without_folders(text: str, preamble_lines: int = 0) -> str:
    """Names of files without the folders that they lie in here, and lines of Python as the student counts."""
    text = _FOLDERS.sub("", _OURS.sub("", text))
    if not preamble_lines:
        return text
    return _LINE_OF_MAIN.sub(
        lambda found: str(int(found[0][:9]) - preamble_lines if int(found[0][:9]) > preamble_lines else 0),
        text,
    )


def fitted(results: Sequence[TestResult]) -> list[TestResult]:
    """The same results, with texts cut so that all of them fit into a grade."""
    size = sum(len(result.message.encode()) + len(result.output.encode()) for result in results)
    if size <= MAX_TEXTS:
        return list(results)
    left = MAX_TEXTS - SHORT * len(results)
    kept: list[TestResult] = []
    for result in results:
        wanted = len(result.message.encode()) + len(result.output.encode())
        if wanted > left + SHORT:
            kept.append(replace(result, message=cut(result.message, SHORT), output=""))
        else:
            left -= max(0, wanted - SHORT)
            kept.append(result)
    return kept
