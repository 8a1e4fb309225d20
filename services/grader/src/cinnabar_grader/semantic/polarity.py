"""Does an answer say the opposite of a reference? Clause by clause: denials, and words with an opposite.

Only a clause that says almost the same words as one of the reference's sentences is compared: what is put in
other words is left to the regression.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cinnabar_grader.semantic.lexicon import (
    CHINESE_FUNCTION,
    CHINESE_NEGATION,
    CHINESE_OPPOSITES,
    CONDITIONAL,
    ENGLISH_DENIAL,
    ENGLISH_FUNCTION,
    ENGLISH_NEGATION,
    ENGLISH_OPPOSITES,
    HEDGED,
    PRIVATIVE,
)
from cinnabar_grader.semantic.text import Analysis, stem

__all__ = ["contradicted", "denied"]

_SENTENCE: Final = re.compile(r"[.!?;](?=\s|$)|[。！？；\n\r]+")
_PART: Final = re.compile(
    r"[,:()]|[，：、（）]|\b(?:but|because|since|so|while|whereas|although|though|and|which|that|as)\b",
    re.IGNORECASE,
)
_DENSE_PART: Final = re.compile(r"[.,!?;:](?=\s|$)|[。！？；：，,\n\r（）()]+")
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
_CLOSE: Final = 0.65
"""Share of a clause's content words that one sentence of a reference must have to be about the same."""
_DENSE_CLOSE: Final = 0.5
"""The same in pairs of characters, which every change of a word costs two of."""

_MAX_CLAUSES: Final = 80
"""Clauses of a text that are compared: the work grows with the product of both texts'."""
_ALIKE: Final = 0.6
_DENSE_ALIKE: Final = 0.55
"""Dice coefficient from which on two clauses are compared word by word."""


@dataclass(frozen=True, slots=True)
class _Clause:
    words: tuple[str, ...]
    """Lower case; in dense scripts the characters."""
    content: tuple[str, ...]
    """Stems of content words in order; in dense scripts pairs of characters, negations left out."""
    negations: int
    heads: frozenset[str]
    """What follows directly on a negation: the next content word, or two characters."""
    hedged: bool
    """Conditional, or "not only": says nothing about what is."""


def denied(references: Sequence[Analysis], answer: Analysis) -> float:
    """0..1: the share of the answer's content in clauses that deny what a reference affirms."""
    parts = _given(answer.text, answer.dense)
    total = sum(len(part.content) for part in parts)
    against = sum(len(part.content) for part in parts if _is_denial(references, part, answer.dense))
    return against / total if total else 0.0


def _is_denial(references: Sequence[Analysis], part: _Clause, dense: bool) -> bool:
    if part.hedged or part.negations % 2 == 0 or len(part.content) < (3 if dense else 2):
        return False
    known = (*_wanted(references, dense, False), *_wanted(references, dense, True))
    if any(part.heads & wanted.heads for wanted in known):
        return False  # a reference denies the same
    for whole in (False, True):
        # A part that says the same is more to the point than a sentence that has the same words somewhere.
        close = [wanted for wanted in _wanted(references, dense, whole) if _shared(part, wanted, dense)]
        if close:
            return not any(wanted.negations or wanted.hedged for wanted in close)
    return False


def _shared(part: _Clause, wanted: _Clause, dense: bool) -> bool:
    found, known = set(part.content), set(wanted.content)
    return len(found & known) >= (_DENSE_CLOSE if dense else _CLOSE) * len(found)


def contradicted(references: Sequence[Analysis], answer: Analysis) -> float:
    """0..1: the share of the answer's clauses that put a word's opposite where a reference has the word."""
    parts = _given(answer.text, answer.dense)
    wanted = list(_wanted(references, answer.dense, False))
    count = sum(1 for part in parts if _is_opposite(wanted, part, answer.dense))
    return count / len(parts) if parts else 0.0


def _is_opposite(references: Sequence[_Clause], part: _Clause, dense: bool) -> bool:
    """The clause of the references that is most like `part` has the opposite of one of its words."""
    if part.hedged or not references or _PAIRED[dense].isdisjoint(part.words):
        return False
    likeness = [(_likeness(part, wanted, dense), index) for index, wanted in enumerate(references)]
    best, index = max(likeness, key=lambda pair: (pair[0], -pair[1]))
    if best < (_DENSE_ALIKE if dense else _ALIKE):
        return False
    wanted = references[index]
    if part.negations % 2 != wanted.negations % 2:
        return False
    return _swapped(part.words, wanted.words, dense)


def _swapped(given: Sequence[str], wanted: Sequence[str], dense: bool) -> bool:
    found, known = set(given), set(wanted)
    return any(
        (found & left and known & right and not found & right and not known & left)
        or (found & right and known & left and not found & left and not known & right)
        for left, right in (CHINESE_OPPOSITES if dense else ENGLISH_OPPOSITES)
    )


def _likeness(part: _Clause, wanted: _Clause, dense: bool) -> float:
    """Dice coefficient of the words that have no opposite; 0 when they are not in the same order."""
    left, right = _plain(part, dense), _plain(wanted, dense)
    if len(set(left)) < (3 if dense else 2) or not right:
        return 0.0
    shared = set(left) & set(right)
    if [w for w in dict.fromkeys(left) if w in shared] != [w for w in dict.fromkeys(right) if w in shared]:
        return 0.0  # "A is slower than B" agrees with "B is faster than A"
    return 2 * len(shared) / (len(set(left)) + len(set(right)))


def _plain(clause: _Clause, dense: bool) -> list[str]:
    if dense:
        return [char for char in clause.words if char not in _PAIRED_CHARS and char not in CHINESE_FUNCTION]
    return [word for word in clause.content if word not in _PAIRED_STEMS]


_PAIRED: Final = {
    dense: frozenset(word for pair in pairs for side in pair for word in side)
    for dense, pairs in ((True, CHINESE_OPPOSITES), (False, ENGLISH_OPPOSITES))
}
_PAIRED_CHARS: Final = frozenset(char for pair in CHINESE_OPPOSITES for side in pair for char in side)
_PAIRED_STEMS: Final = frozenset(stem(word) for pair in ENGLISH_OPPOSITES for side in pair for word in side)


def _wanted(references: Sequence[Analysis], dense: bool, whole: bool) -> Iterator[_Clause]:
    for reference in references:
        if reference.dense == dense:
            yield from _known(reference.text, dense, not whole)


@lru_cache(maxsize=512)
def _known(text: str, dense: bool, split: bool) -> tuple[_Clause, ...]:
    """`_clauses` of a reference, which comes back with every answer."""
    return _clauses(text, dense, split)


@lru_cache(maxsize=4)
def _given(text: str, dense: bool) -> tuple[_Clause, ...]:
    """`_clauses` of an answer, which several rules ask for one after the other."""
    return _clauses(text, dense, True)


def _clauses(text: str, dense: bool, split: bool) -> tuple[_Clause, ...]:
    """The clauses of `text`, or with `split` False its sentences (spaced scripts only)."""
    if dense:
        return tuple(filter(None, map(_dense_clause, _DENSE_PART.split(text))))[:_MAX_CLAUSES]
    found: list[_Clause | None] = []
    for sentence in _SENTENCE.split(text):
        conditional = bool(CONDITIONAL.search(sentence))
        denial = ENGLISH_DENIAL.search(sentence)
        before, after = (sentence[: denial.start()], sentence[denial.end() :]) if denial else (sentence, "")
        found.extend(
            _spaced_clause(piece, conditional, 0) for piece in (_PART.split(before) if split else [before])
        )
        for index, piece in enumerate(_PART.split(after) if split else [after]):
            # "It is false that A, since B, and it does not C" denies A, B and C.
            found.append(_spaced_clause(piece, conditional, 1, again=index > 0))
    return tuple(clause for clause in found if clause is not None)[:_MAX_CLAUSES]


def _spaced_clause(text: str, conditional: bool, outright: int, *, again: bool = False) -> _Clause | None:
    words = tuple(word.lower().replace("’", "'") for word in _WORD.findall(text))
    content = tuple(
        stem(word) for word in words if word not in ENGLISH_FUNCTION and word not in ENGLISH_NEGATION
    )
    if not content:
        return None
    denying = [index for index, word in enumerate(words) if word in ENGLISH_NEGATION or word.endswith("n't")]
    negations = len(denying) + sum(word in PRIVATIVE and word not in ENGLISH_NEGATION for word in words)
    heads = frozenset(
        stem(next((later for later in words[index + 1 :] if later not in ENGLISH_FUNCTION), ""))
        for index in denying
    )
    return _Clause(
        words,
        content,
        max(negations, outright) if again else negations + outright,
        heads - {""},
        conditional or bool(HEDGED.search(text)),
    )


def _dense_clause(text: str) -> _Clause | None:
    bare, negations = CHINESE_NEGATION.subn("", text)
    chars = tuple(c for c in bare.lower() if c.isalnum())
    pairs = tuple(map("".join, pairwise(chars)))
    heads = frozenset(text[match.end() : match.end() + 2] for match in CHINESE_NEGATION.finditer(text))
    hedged = bool(HEDGED.search(text) or CONDITIONAL.search(text))
    return _Clause(chars, pairs, negations, heads - {""}, hedged) if pairs else None
