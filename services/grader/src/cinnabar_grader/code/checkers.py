"""How outputs of programs are compared with expected ones.

A checker that is a program is not here: it needs a sandbox, see `running`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

_NUMBER = re.compile(
    rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?|[+-]?(?:inf(?:inity)?|nan)", re.IGNORECASE
)
_LONGEST_NUMBER = 400  # characters; what is longer is a word
MAX_SAID = 64 * 1024


@dataclass(slots=True, frozen=True)
class Exact:
    """Byte by byte, but for line ends and one at the end."""

    def agree(self, output: bytes, expected: bytes) -> bool:
        """Whether they are the same."""
        return _lines(output) == _lines(expected)


@dataclass(slots=True, frozen=True)
class Tokens:
    """Word by word; Unicode letters of two cases are the same with ``ignore_case``."""

    ignore_case: bool = False

    def agree(self, output: bytes, expected: bytes) -> bool:
        """Whether they are the same words."""
        if self.ignore_case:
            return _folded(output) == _folded(expected)
        return output.split() == expected.split()


@dataclass(slots=True, frozen=True)
class Numbers:
    """Word by word, where words that are numbers may differ by either tolerance.

    ValueError for a tolerance that is none.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.absolute < math.inf:
            raise ValueError("the absolute tolerance must be 0 or more and finite")
        if not 0 <= self.relative < 1:
            raise ValueError("the relative tolerance must be 0 or more and below 1")

    def agree(self, output: bytes, expected: bytes) -> bool:
        """Whether they are the same words and nearly the same numbers."""
        found, wanted = output.split(), expected.split()
        return len(found) == len(wanted) and all(map(self._same, found, wanted))

    def _same(self, found: bytes, wanted: bytes) -> bool:
        if found == wanted:
            return True
        one, other = _number(found), _number(wanted)
        if one is None or other is None:
            return False
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        if math.isinf(one) or math.isinf(other):
            return one == other
        return abs(one - other) <= max(self.absolute, self.relative * abs(other))


@dataclass(slots=True, frozen=True)
class Program:
    """A Python program that judges in a sandbox of its own."""

    source: str


Checker: TypeAlias = "Exact | Tokens | Numbers | Program"


class BrokenChecker(ValueError):
    """A checker did not say what it must: the fault of the item. The message holds no student text."""


def judgement(said: bytes) -> tuple[float, str]:
    """Share that is right and what the student reads, out of what a checker printed. BrokenChecker."""
    first, _, rest = said[:MAX_SAID].decode("utf-8", "replace").lstrip("\ufeff").partition("\n")
    try:
        share = float(first.strip())
    except ValueError:
        raise BrokenChecker("its first line is not a number") from None
    if not 0 <= share <= 1:
        raise BrokenChecker("its share is not between 0 and 1")
    return share, rest.strip()


def _lines(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").removesuffix(b"\n")


def _folded(text: bytes) -> list[str]:
    # Surrogates stand for bytes that are no UTF-8, which stay apart from each other.
    return text.decode("utf-8", "surrogateescape").casefold().split()


def _number(word: bytes) -> float | None:
    if len(word) > _LONGEST_NUMBER or not _NUMBER.fullmatch(word):
        return None
    return float(word)
