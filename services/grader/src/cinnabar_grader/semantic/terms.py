"""Which parts of a reference an answer has, in words a student can read."""

import re
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
    found: dict[str, tuple[str, bool]] = {}
    for match in _WORD.finditer(reference.text):
        word = match.group()
        lower = word.lower()
        key = stem(lower)
        if len(word) < 3 or lower in ENGLISH_FUNCTION or key in question.content or key in found:
            continue
        parts = [stem(part) for part in re.split(r"[-'’]", lower)]
        found[key] = (word, key in answer.content or all(part in answer.content for part in parts))
    return list(found.values())


def _clauses(reference: Analysis, answer: Analysis) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    for clause in clauses(reference.text, dense=True):
        wanted = analyse(clause).content.keys()
        if len(wanted) >= 2:
            share = len(wanted & answer.content.keys()) / len(wanted)
            found.append((clause[:_MAX_CLAUSE_CHARS], share >= _CLAUSE_SHARE))
    return found
