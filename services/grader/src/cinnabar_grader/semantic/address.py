"""Does a text speak to whoever grades it?

Words of several classes (what is given, who gives it, how much, what to do, for what) in one sentence are
what such texts have in common in every language; the words are in `address.toml`. They may be disguised:
letters of another alphabet, spaced out, digits for letters, turned around, encoded. A text whose question or
references speak of grading themselves is not looked at.
"""

import base64
import binascii
import codecs
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from cinnabar_grader.semantic.lexicon import INSTRUCTIONS

__all__ = ["SENTENCE", "addresses", "disguised", "speaks_of_grading", "words_of"]

_ENOUGH: Final = 2
"""Classes of a sentence that make it one; points count for less, see `_Language.addresses`."""
_UNSPACED: Final = frozenset({"zh", "ja", "ko", "ar", "hi"})
"""Languages whose words are looked for without their ends: written together, or with endings and prefixes."""
_SCRIPTS: Final = {
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "ja": re.compile(r"[\u3040-\u30ff]"),
    "ko": re.compile(r"[\uac00-\ud7a3]"),
    "ar": re.compile(r"[\u0600-\u06ff]"),
    "hi": re.compile(r"[\u0900-\u097f]"),
    "ru": re.compile(r"[\u0400-\u04ff]"),
    "uk": re.compile(r"[\u0400-\u04ff]"),
}
_LATIN: Final = re.compile(r"[A-Za-z]")
_CLASSES: Final = ("marks", "judge", "machine", "top", "command", "own", "plea")
_MARKUP: Final = re.compile(
    r"<\|[^|>]{1,40}\|>|\[/?(?:INST|SYS)\]|<</?SYS>>|^[^\w\n]{0,9}(?:assistant|system|developer|user) ?:"
    r"|</?(?:answer|system|instructions?|rubric|student_answer|score|grade|points|verdict|grading|prompt)>"
    r"|[\"'](?:points|score|grade|confidence|criteria|max_score|verdict)[\"'] ?:"
    r"|^#{1,6} ?(?:new|system|instruction|task|end|grading)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Forms of messages between programs and models."""
_WORD: Final = re.compile(r"\w+")
SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|[。！？\n\r]+")


@dataclass(frozen=True, slots=True)
class _Language:
    script: re.Pattern[str]
    signs: frozenset[str]
    some: re.Pattern[str]
    strong: re.Pattern[str]
    points: re.Pattern[str]
    classes: tuple[re.Pattern[str], ...]

    def addresses(self, text: str) -> bool:
        """Whether some sentence does, in this language."""
        return bool(self.some.search(text)) and any(map(self._addresses, SENTENCE.split(text)))

    def _addresses(self, sentence: str) -> bool:
        if (self.signs and self.signs.isdisjoint(words_of(sentence))) or not self.some.search(sentence):
            return False
        if self.strong.search(sentence):
            return True
        marks, judge, machine, top, command, own, plea = (
            bool(pattern.search(sentence)) for pattern in self.classes
        )
        count = marks + judge + machine + top + command + own + plea
        if marks or judge or machine:
            return count >= _ENOUGH and (own or plea or judge or (top and command) or (marks and machine))
        # What is said of points may be geometry.
        everyday = bool(self.points.search(sentence))
        return count + everyday > _ENOUGH and (own or plea) and (everyday or plea)


def _compiled(name: str, words: dict[str, Any]) -> _Language:
    spaced = name not in _UNSPACED

    def pattern(*keys: str) -> re.Pattern[str]:
        joined = "|".join(str(words[key]) for key in keys)
        return re.compile(rf"\b(?:{joined})(?!\w)" if spaced else joined, re.IGNORECASE)

    return _Language(
        script=_SCRIPTS.get(name, _LATIN),
        signs=frozenset(str(words["signs"]).split()),
        some=pattern("strong", "marks", "points", "judge", "machine", "plea"),
        strong=pattern("strong"),
        points=pattern("points"),
        classes=tuple(map(pattern, _CLASSES)),
    )


_LANGUAGES: Final = {
    name: _compiled(name, words)
    for name, words in tomllib.loads(
        resources.files(__package__ or __name__).joinpath("address.toml").read_text("utf-8")
    ).items()
}


_LATIN_ALONE: Final = [language for language in _LANGUAGES.values() if language.signs]


def addresses(text: str) -> bool:
    """Whether some sentence of `text` speaks to whoever grades it, or in the forms of a program."""
    if _MARKUP.search(text):
        return True
    words = words_of(text)
    scripts = _LATIN_ALONE if text.isascii() else _LANGUAGES.values()
    return any(
        language.addresses(text)
        for language in scripts
        if (not language.signs.isdisjoint(words) if language.signs else language.script.search(text))
    )


@lru_cache(maxsize=16)
def words_of(text: str) -> frozenset[str]:
    """The words of `text`, lower case."""
    return frozenset(_WORD.findall(text.lower()))


@lru_cache(maxsize=512)
def speaks_of_grading(known: str) -> bool:
    """Whether a question with its references does by itself."""
    return addresses(known)


_ALIKE: Final = str.maketrans(
    "АВЕКМНОРСТХУаеорсухіјѕԁѵΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοριντυкмтвн",
    "ABEKMHOPCTXYaeopcyxijsdvABEZHIKMNOPTYXaopivtukmtbh",
)
_DIGITS: Final = str.maketrans("01345789@$", "oieastbgas")
_MIXED: Final = re.compile(r"[A-Za-z][\u0370-\u03ff\u0400-\u04ff]|[\u0370-\u03ff\u0400-\u04ff][A-Za-z]")
_LEET: Final = re.compile(r"[A-Za-z][013457@$][A-Za-z]|(?<![\w.])[1430][a-z]{2,}")
_SPACED: Final = re.compile(r"(?<![^\W_])[^\W\d_](?:[ .\-_*·]{1,2}[^\W\d_](?![^\W_])){4,}")
_WIDE: Final = re.compile(r"(?<=[^\W_]) {2,}(?=[^\W_])")
_SEPARATOR: Final = re.compile(r"[\W_]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){10,}")
_JOINED: Final = re.compile(r"(?<![^\W\d_])[^\W\d_]++(?:[-_/.][^\W\d_]++){3,}")
_TELLING: Final = frozenset(
    {
        *("ignore", "disregard", "instruction", "instructions", "previous", "prompt", "rubric", "grader"),
        *("grading", "marks", "score", "grade", "points", "credit", "award", "full", "maximum"),
    }
)
"""Words that one of these texts has in English; looked for turned around, and moved by 13 letters."""
_TURNED: Final = frozenset(word[::-1] for word in _TELLING)
_MOVED: Final = frozenset(codecs.encode(word, "rot13") for word in _TELLING)
_FEW: Final = 2
"""Letters by themselves, or signs within words, up to which a text is not taken apart."""
_LONG: Final = 10
"""Letters of a word from which on it may be encoded."""
_ENGLISH: Final = _LANGUAGES["en"]


def disguised(text: str) -> bool:
    """Whether `text` does so in a disguise."""
    return bool(_LATIN.search(text)) and any(map(_in_clear, _views(text)))


def _in_clear(view: str) -> bool:
    return _ENGLISH.addresses(view) or any(pattern.search(view) for pattern in INSTRUCTIONS)


def _views(text: str) -> Iterator[str]:
    """What a text may be underneath. Cheap looks come first: nearly every text is nothing but itself."""
    words = words_of(text)
    if not text.isascii() and _MIXED.search(text):
        yield text.translate(_ALIKE)
    mixed = not all(word.isalpha() or word.isdigit() for word in words) or "@" in text or "$" in text
    if mixed and _LEET.search(text):
        yield text.lower().translate(_DIGITS)
    if sum(len(word) == 1 for word in words) > _FEW and _SPACED.search(text):
        # Words are apart by more than letters are, or not at all.
        bare = _SPACED.sub(lambda match: _SEPARATOR.sub("", match.group()), _WIDE.sub("\n", text))
        yield bare.replace("\n", " ")
        letters = _SPACED.sub(lambda match: _SEPARATOR.sub("", match.group()), text).lower()
        if sum(word in letters for word in _TELLING) > 1:
            yield "previous instructions"
    if max(map(text.count, "-_/.")) > _FEW and _JOINED.search(text):
        yield _SEPARATOR.sub(" ", text)
    if len(words & _MOVED) > 1:
        yield codecs.encode(text, "rot13")
    if len(words & _TURNED) > 1:
        yield text[::-1]
    if max(map(len, words), default=0) < _LONG:
        return
    for match in _BASE64.finditer(text):
        yield _decoded(match.group(), base64.b64decode)
    for match in _HEX.finditer(text):
        yield _decoded(match.group(), binascii.unhexlify)


def _decoded(text: str, decode: Callable[[bytes], bytes]) -> str:
    try:
        return decode(text.encode()).decode("ascii")
    except ValueError:
        return ""
