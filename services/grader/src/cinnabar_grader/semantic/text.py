"""Texts taken apart: tokens, content words, clauses, script. Pure functions; bounded by `MAX_CHARS`."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import compress, pairwise
from typing import Final

from cinnabar_grader.semantic.lexicon import (
    CHINESE_FUNCTION,
    ENGLISH_FUNCTION,
    ENGLISH_NEGATION,
    NO,
    OTHER_FUNCTION,
    YES,
)

__all__ = ["MAX_CHARS", "Analysis", "Script", "analyse", "clean", "script_of"]

MAX_CHARS: Final = 6000
"""Characters of a text that are read; about three pages, twelve times the longest real answer seen."""

_DENSE = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Thai, kana, Han: no spaces
_TOKEN = re.compile(rf"[{_DENSE}]|[^\W_{_DENSE}]+(?:['’][^\W\d_{_DENSE}]+)?")
_DENSE_CHAR = re.compile(rf"[{_DENSE}]")
_ALNUM = re.compile(r"[^\W_]+")
_CLAUSE = re.compile(r"[.!?;:](?=\s|$)|[。！？；：\n\r]+|(?<=\s)[-•*](?=\s)")
_DENSE_CLAUSE = re.compile(r"[.!?;:](?=\s|$)|[。！？；：，,\n\r]+")
_SUFFIXES = (
    ("ies", "y", 4),
    ("sses", "ss", 5),
    ("ing", "", 6),
    ("edly", "", 7),
    ("ed", "", 5),
    ("ly", "", 6),
    ("es", "", 5),
    ("s", "", 4),
)
_VOWEL = re.compile(r"[aeiouy]")


class Script(StrEnum):
    """Which encoder and which weights a request takes."""

    ENGLISH = "en"
    CHINESE = "zh"  # and other scripts without spaces
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Analysis:
    """One text, taken apart once."""

    text: str
    """Normalized, at most `MAX_CHARS` characters."""
    dense: bool
    """Most letters belong to a script without spaces; content then is character bigrams."""
    tokens: tuple[str, ...]
    """Every word (lower case, stemmed) or dense character, in order."""
    content: Counter[str]
    """Content words, or bigrams of dense characters and the words between them."""
    trigrams: Counter[str]
    """Character trigrams over letters and digits."""
    bigrams: Counter[tuple[str, str]]
    """Neighbouring tokens."""
    sequence: tuple[str, ...]
    """Content words in order (spaced scripts), or all of `tokens` (dense scripts)."""
    numbers: frozenset[str]
    verdict: int
    """1 when the text opens with a yes, −1 with a no, 0 otherwise."""
    negations: int
    """Negating words."""
    functions: int
    """Function words among `tokens`."""

    @property
    def length(self) -> int:
        return len(self.tokens)


def clean(text: str) -> tuple[str, bool]:
    """`text` in NFKC without control and format characters, and whether it had to be cut at `MAX_CHARS`."""
    cut = len(text) > MAX_CHARS
    # Cut before normalizing (it can expand a character 18-fold) and again after.
    normal = unicodedata.normalize("NFKC", text[:MAX_CHARS])[:MAX_CHARS]
    if normal.isprintable():
        kept = normal  # has no such character, nor any white space but " "
    elif normal.isascii():
        kept = _ASCII_CONTROLS.sub(" ", normal)
    else:
        kept = "".join(map(_visible, normal))
    return re.sub(r" {2,}", " ", kept).strip(), cut


def _visible(character: str) -> str:
    """Itself, a space for white space and control characters, nothing for those that join or hide."""
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    return "" if category == "Cf" else " " if category in _DROPPED else character


_DROPPED = frozenset({"Cc", "Cs", "Co", "Cn"})
_ASCII_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def script_of(texts: Iterable[str]) -> Script:
    """The script of a question and its references together."""
    joined = " ".join(texts)[:MAX_CHARS]
    letters = sum(c.isalpha() for c in joined)
    if not letters:
        return Script.ENGLISH
    if len(_DENSE_CHAR.findall(joined)) > 0.15 * letters:
        return Script.CHINESE
    if sum(c.isalpha() and ord(c) > 0x24F for c in joined) > 0.3 * letters:
        return Script.OTHER  # neither Latin nor dense
    words = [token.lower() for token in _TOKEN.findall(joined)]
    english = sum(word in ENGLISH_FUNCTION for word in words)
    other = max(sum(word in function for word in words) for function in OTHER_FUNCTION)
    return Script.OTHER if other > max(english, 1) else Script.ENGLISH


def analyse(text: str) -> Analysis:
    """Take `text` (already `clean`) apart."""
    raw = [match.lower() for match in _TOKEN.findall(text)]
    dense_count = sum(1 for token in raw if len(token) == 1 and _DENSE_CHAR.match(token))
    dense = dense_count > 0.3 * len(raw)
    negations = sum(
        1 for token in raw if token in ENGLISH_NEGATION or token.endswith("n't") or token.endswith("n’t")
    )
    negations += len(_CHINESE_NEGATION.findall(text)) if dense else 0
    tokens = tuple(map(stem, raw))
    functions = sum(1 for token in raw if token in (CHINESE_FUNCTION if dense else ENGLISH_FUNCTION))
    joined = "".join(_ALNUM.findall(text.lower()))
    return Analysis(
        text=text,
        dense=dense,
        tokens=tokens,
        content=_content(raw, tokens),
        trigrams=Counter(map("".join, zip(joined, joined[1:], joined[2:], strict=False))),
        bigrams=Counter(pairwise(tokens)),
        sequence=tokens if dense else tuple(compress(tokens, (word not in ENGLISH_FUNCTION for word in raw))),
        verdict=-1 if NO.match(text) else int(bool(YES.match(text))),
        numbers=frozenset(token for token in tokens if token[0].isdigit()),
        negations=negations,
        functions=functions,
    )


_CHINESE_NEGATION = re.compile(r"不(?!仅|但|断|同|管|论|过)|没有|并非|无法|无需|不是|错误|未")


def _content(raw: list[str], tokens: tuple[str, ...]) -> Counter[str]:
    """Words that are no function words; for dense runs their character bigrams."""
    content: Counter[str] = Counter()
    run = ""
    for word, token in zip(raw, tokens, strict=True):
        if len(word) == 1 and _DENSE_CHAR.match(word):
            if run:
                content[run + word] += 1
            run = word
            continue
        run = ""
        if word not in ENGLISH_FUNCTION:
            content[token] += 1
    return content


_LONGEST: Final = 40
"""Letters of the longest English word there is, and a few more."""


def stem(word: str) -> str:
    """A light English stemmer: endings off when a vowel stays. Other scripts pass unchanged."""
    if len(word) < 4 or len(word) > _LONGEST or not word.isascii():
        return word
    return _stem(word)


@lru_cache(maxsize=16384)
def _stem(word: str) -> str:
    if word.endswith("'s"):
        word = word[:-2]
    for suffix, replacement, shortest in _SUFFIXES:
        if word.endswith(suffix) and len(word) >= shortest and not word.endswith(("ss", "us", "is")):
            base = word[: len(word) - len(suffix)]
            if not _VOWEL.search(base):
                return word
            if (
                suffix in ("ing", "ed", "es")
                and len(base) > 2
                and base[-1] == base[-2]
                and base[-1] not in "lsz"
            ):
                base = base[:-1]
            base += replacement
            return base[:-1] if base.endswith("e") and len(base) > 4 else base
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def clauses(text: str, *, dense: bool, limit: int = 24) -> list[str]:
    """Sentences (spaced scripts) or clauses (dense scripts) of `text`; short pieces join their neighbour."""
    shortest = 6 if dense else 12
    pieces: list[str] = []
    for piece in (_DENSE_CLAUSE if dense else _CLAUSE).split(text):
        piece = piece.strip(" -•*,，、.。")
        if not piece:
            continue
        if pieces and len(pieces[-1]) < shortest:
            pieces[-1] = f"{pieces[-1]} {piece}"
        else:
            pieces.append(piece)
    if len(pieces) > 1 and len(pieces[-1]) < shortest:
        last = pieces.pop()
        pieces[-1] = f"{pieces[-1]} {last}"
    return pieces[:limit]
