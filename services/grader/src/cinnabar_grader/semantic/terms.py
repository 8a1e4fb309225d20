"""Which parts of a reference an answer has, in words a student can read."""

import re
from functools import lru_cache
from typing import Final

from cinnabar_grader.semantic.lexicon import ENGLISH_FUNCTION
from cinnabar_grader.semantic.text import Analysis, analyse, clauses, stem

__all__ = ["MAX_TERMS", "key_terms"]

MAX_TERMS: Final = 8
_WORD: Final = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_CLAUSE_SHARE: Final = 0.5
_MAX_CLAUSE_CHARS: Final = 60


def key_terms(
    question: Analysis, reference: Analysis, answer: Analysis
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What of `reference` the `answer` covers and what it misses, at most `MAX_TERMS` each."""
    found = _clauses(reference, answer) if reference.dense else _words(question, reference, answer)
    covered = [term for term, present in found if present]
    missing = [term for term, present in found if not present]
    return tuple(covered[:MAX_TERMS]), tuple(missing[:MAX_TERMS])


def _words(question: Analysis, reference: Analysis, answer: Analysis) -> list[tuple[str, bool]]:
    given = answer.content.keys()
    return [
        (word, key in given or all(part in given for part in parts))
        for word, key, parts in _wanted(question.text, reference.text)
    ]


@lru_cache(maxsize=256)
def _wanted(question: str, reference: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Words of a reference that the question does not hand out: as written, stemmed, stems of its parts."""
    asked = analyse(question).content
    found: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    for match in _WORD.finditer(reference):
        word = match.group()
        lower = word.lower()
        key = stem(lower)
        if len(word) < 3 or lower in ENGLISH_FUNCTION or key in asked or key in found:
            continue
        found[key] = (word, key, tuple(stem(part) for part in re.split(r"[-'’]", lower)))
    return tuple(found.values())


def _clauses(reference: Analysis, answer: Analysis) -> list[tuple[str, bool]]:
    given = answer.content.keys()
    return [
        (clause, len(wanted & given) / len(wanted) >= _CLAUSE_SHARE)
        for clause, wanted in _wanted_clauses(reference.text)
    ]


@lru_cache(maxsize=256)
def _wanted_clauses(reference: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Clauses of a reference, cut to a length to show, each with its content."""
    found = [(clause, frozenset(analyse(clause).content)) for clause in clauses(reference, dense=True)]
    return tuple((clause[:_MAX_CLAUSE_CHARS], wanted) for clause, wanted in found if len(wanted) >= 2)
