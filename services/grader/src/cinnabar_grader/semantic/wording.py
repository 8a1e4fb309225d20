"""Is an answer language at all? Terms without sentences, and words in an order that no sentence has."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from cinnabar_grader.semantic.features import common_subsequence, overlap
from cinnabar_grader.semantic.lexicon import (
    CHINESE_ENDLESS,
    CHINESE_HEADLESS,
    LISTING,
    UNFOLLOWED,
)
from cinnabar_grader.semantic.text import Analysis

__all__ = ["is_bare_list", "is_salad", "lists_keywords"]

_SEPARATOR: Final = re.compile(r"[,，、;；/|\n•]|\s-\s")
_LIST_SEPARATOR: Final = re.compile(r"[,;/|\n•.]|\s-\s")
_DENSE_SEPARATOR: Final = re.compile(r"[,，、;；/|\n•\s]")
_DENSE_STOP: Final = re.compile(r"[，。；：！？,.;:!?\s]+")
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?|[.,;:!?()]")
_FEW: Final = 4
"""Pieces from which on a list is no phrase any more."""
_MANY: Final = 12
"""The same where the question asks for a list."""
_SHORTEST: Final = 8
"""Tokens below which an order says nothing."""
_SHORTEST_DENSE: Final = 14
_BOUND: Final = frozenset("的了着过是被把就也很")
"""Characters that bind words to a sentence."""


def lists_keywords(question: Analysis, reference: Analysis, answer: Analysis) -> bool:
    """Many short pieces, or words without any function words, most of them the reference's."""
    if answer.length < 5 or not _is_prose(reference):
        return False
    pieces = [piece.split() for piece in _SEPARATOR.split(answer.text) if piece.strip()]
    enough = _MANY if LISTING.search(question.text) else 5
    if answer.dense:
        bare = len(pieces) >= enough and len("".join(map("".join, pieces))) <= 4.5 * len(pieces)
    else:
        listed = len(pieces) >= enough and sum(map(len, pieces)) <= 2 * len(pieces)
        unbound = answer.length >= enough + 2 and answer.functions <= 0.05 * answer.length
        bare = listed or (unbound and reference.functions >= 0.2 * reference.length)
    _, precision, _ = overlap(reference.content, answer.content)
    return bare and (answer.dense or precision > 0.4)


def is_bare_list(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    """Nothing but terms of the question's topic: no function word, no formula, no clause."""
    if answer.verdict or not any(map(_is_prose, references)):
        return False
    enough = _MANY if LISTING.search(question.text) else _FEW
    known = set(question.content).union(*(reference.content for reference in references))
    shared = len(known & answer.content.keys()) / max(1, len(answer.content))
    if answer.dense:
        pieces = [piece for piece in _DENSE_SEPARATOR.split(answer.text.strip(" .。")) if piece]
        return (
            len(pieces) >= enough
            and max(map(len, pieces)) <= 6
            and sum(map(len, pieces)) <= 4 * len(pieces)
            and all(c.isalpha() for piece in pieces for c in piece)
            and not any(c in _BOUND for piece in pieces for c in piece)
        )
    words = sum(token.isalpha() and len(token) > 2 for token in answer.tokens)
    if answer.length < enough or words < 0.75 * answer.length or answer.numbers:
        return False
    pieces = [piece.split() for piece in _LIST_SEPARATOR.split(answer.text) if piece.strip()]
    listed = len(pieces) >= enough and max(map(len, pieces)) <= 2
    bare = len(pieces) == 1 and answer.length > enough and shared >= 0.4
    return answer.functions == 0 and (listed or bare)


def _is_prose(reference: Analysis) -> bool:
    return reference.length >= 10 and len(reference.text) >= (20 if reference.dense else 40)


def is_salad(question: Analysis, references: Sequence[Analysis], best: Analysis, answer: Analysis) -> bool:
    """The words of the reference, hardly any two side by side as there, or side by side as in no sentence."""
    return _is_shuffled(best, answer) or _is_disordered(question, references, answer)


def _is_shuffled(reference: Analysis, answer: Analysis) -> bool:
    """Nearly all tokens are the reference's, hardly any two stand together as they do there.

    A short honest answer can reuse words in its own order: most of the reference has to be there, or no order
    at all.
    """
    if answer.length < 6 or reference.length < 6:
        return False
    known, found = set(reference.tokens), set(answer.tokens)
    shared, whole = len(found & known) / len(found), len(found & known) / len(known)
    _, neighbours, _ = overlap(reference.bigrams, answer.bigrams)
    if whole > 0.7:
        return neighbours < 0.3 and shared > (0.7 if answer.dense else 0.85)
    return neighbours < 0.1 and shared > 0.85 and answer.length >= 10


def _is_disordered(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    """Words of the question and the references whose neighbours are others than there, or impossible.

    Unlike `_is_shuffled` it looks at all known texts together, and a part of a reference is enough.
    """
    if answer.length < _SHORTEST:
        return False
    texts = (question, *references)
    tokens = set(answer.tokens)
    shared = len(tokens & set[str]().union(*(text.tokens for text in texts))) / len(tokens)
    kept = set(question.bigrams).union(*(reference.bigrams for reference in references))
    neighbours = len(kept & answer.bigrams.keys()) / max(1, len(answer.bigrams))
    if not answer.dense:
        breaks = _breaks(answer.text)
        if shared >= 0.8 and (neighbours < 0.22 if breaks else neighbours < 0.12 and answer.length >= 12):
            return True
        return shared >= 0.6 and neighbours < 0.27 and breaks >= max(2, 0.03 * answer.length)
    formula = sum(token.isascii() for token in answer.tokens) > 0.1 * answer.length
    if shared < 0.85 or neighbours > 0.62 or formula or answer.length < _SHORTEST_DENSE:
        return False
    found = set(_triples(answer.tokens))
    triples = len(
        found & set[tuple[str, str, str]]().union(*(_triples(text.tokens) for text in texts))
    ) / len(found)
    order = max(common_subsequence(text.tokens, answer.tokens) for text in texts) / answer.length
    return (triples < 0.2 and order < 0.56) or _dense_breaks(answer.text) >= max(2, 0.1 * answer.length)


def _triples(tokens: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    return zip(tokens, tokens[1:], tokens[2:], strict=False)


def _breaks(text: str) -> int:
    """Pairs of neighbours that English does not have: "the of", "and.", "of is"."""
    # A capital in mid-sentence is a label ("node A and B"), no article.
    words = [word if word == "A" else word.lower() for word in _WORD.findall(text.replace("’", "'"))] + ["."]
    return sum(1 for left, right in pairwise(words) if right in UNFOLLOWED.get(left, ()))


def _dense_breaks(text: str) -> int:
    """Clauses that begin with a particle or end with a preposition, and particles in a row."""
    count = 0
    for clause in filter(None, _DENSE_STOP.split(text)):
        count += clause[0] in CHINESE_HEADLESS
        count += clause[-1] in CHINESE_ENDLESS
        count += sum(
            right in CHINESE_HEADLESS and (left in CHINESE_HEADLESS or left in CHINESE_ENDLESS)
            for left, right in pairwise(clause)
        )
    return count
