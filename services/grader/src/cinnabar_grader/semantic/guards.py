"""Rules that speak before the regression, each with a reason code. Thresholds: see the model card's table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cinnabar_grader.semantic.address import addresses, disguised, speaks_of_grading, words_of
from cinnabar_grader.semantic.features import Text, overlap
from cinnabar_grader.semantic.lexicon import DENIAL, INSTRUCTING, INSTRUCTIONS, NO, REFUSALS, REFUSING
from cinnabar_grader.semantic.polarity import contradicted, denied
from cinnabar_grader.semantic.scores import Flag
from cinnabar_grader.semantic.text import Analysis, clauses
from cinnabar_grader.semantic.wording import is_bare_list, is_salad, lists_keywords

__all__ = ["Verdict", "guard", "is_apology", "is_refusal", "without_instructions"]

_EDGES: Final = " .!?,;:-_~^*()[]'\"。！？，；：、…～（）"
_HAN: Final = re.compile(r"[\u4e00-\u9fff]")
_PIECE: Final = re.compile(r"[.!?;,:。！？；，：\s]+")
_DOUBTED: Final = 0.2
"""At most this for a denied or scrambled reference or what is off the topic: teachers give 0."""
_REVERSED: Final = 0.3
"""At most this for terms without sentences, or where half of an answer says the opposite."""
_MAX_REFUSAL: Final = 100
_MAX_DENSE_REFUSAL: Final = 30
"""Characters up to which an answer can be a refusal in its own words."""
_SHORT: Final = 8
"""Tokens below which an answer has little to be far from the topic with."""
_FAR: Final = 0.5
_FAR_DENSE: Final = 0.35
"""Nearness below which even a long answer off the topic is bounded."""
_SOME: Final = 0.2
_MUCH: Final = 0.3
"""Shares of an answer that say the opposite: from `_SOME` on a person looks at a denial (at a swapped word
always); from `_MUCH` on the score is bounded."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guards found."""

    flags: tuple[Flag, ...] = ()
    ceiling: float = 1.0
    """The fraction is at most this."""
    settled: bool = False
    """The score is 0 and the regression need not run."""


def is_refusal(text: str) -> bool:
    """The whole text says that there is no answer."""
    plain = text.lower().replace("’", "'").strip(_EDGES)
    return len(plain) < 60 and re.sub(r"\s+", " ", plain) in REFUSALS


def is_apology(text: str) -> bool:
    """A short text says that there is no answer, whatever else it says to the grader."""
    return len(text) <= _MAX_REFUSAL and bool(REFUSING.search(text.replace("’", "'")))


def without_instructions(text: str, *, dense: bool, known: str = "") -> tuple[str, bool]:
    """`text` without its sentences that address the grader, and whether there were any.

    `known` is the question with its references: where these speak of grading, an answer may too.
    """
    free = not known or not speaks_of_grading(known)

    def instructs(piece: str) -> bool:
        look = bool(_HAN.search(piece)) or not INSTRUCTING.isdisjoint(words_of(piece))
        return (look and any(pattern.search(piece) for pattern in INSTRUCTIONS)) or (
            free and addresses(piece)
        )

    if instructs(text):
        pieces = clauses(text, dense=dense, limit=200)
        kept = [piece for piece in pieces if not instructs(piece)]
        return ". ".join(kept), True
    return text, free and disguised(text)


def guard(question: Text, references: Sequence[Text], best: Text, answer: Text) -> Verdict:
    """Judge an `answer` that has words and is no refusal. `best` is the closest of the `references`.

    Only what real answers hardly ever trip lowers the score; the other guards ask for a person.
    """
    asked, wanted, given = question.analysis, best.analysis, answer.analysis
    if _copies_question(asked, [text.analysis for text in references], given):
        return Verdict((Flag.QUESTION_COPY,), 0.0, settled=True)
    known = [text.analysis for text in references]
    if _refuses(asked, known, given):
        return Verdict((Flag.REFUSAL,), 0.0, settled=True)
    found: dict[Flag, float] = {}
    nearness = _nearness(question, references, best, answer)
    if nearness < 1.0:
        found[Flag.OFF_TOPIC] = (
            _DOUBTED if nearness < (_FAR_DENSE if given.dense else _FAR) or given.length < _SHORT else 1.0
        )
    against = denied(known, given)
    if _denies(wanted, given):
        found[Flag.NEGATION_MISMATCH] = _DOUBTED
    elif against >= _SOME:
        found[Flag.NEGATION_MISMATCH] = _REVERSED if against >= _MUCH else 1.0
    swapped = contradicted(known, given)
    if swapped > 0:
        found[Flag.CONTRADICTION] = _REVERSED if swapped >= _MUCH else 1.0
    if is_bare_list(asked, known, given):
        found[Flag.KEYWORD_LIST] = _REVERSED
    elif lists_keywords(asked, wanted, given):
        found[Flag.KEYWORD_LIST] = 1.0
    if is_salad(asked, known, wanted, given):
        found[Flag.WORD_SALAD] = _DOUBTED
    if _is_foreign(wanted, given):
        found[Flag.SCRIPT_MISMATCH] = 1.0
    return Verdict(tuple(found), min(found.values(), default=1.0))


def _refuses(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    """A short text with a refusal somewhere in it, and not one word of a reference."""
    if len(answer.text) > (_MAX_DENSE_REFUSAL if answer.dense else _MAX_REFUSAL):
        return False
    pieces = _PIECE.split(answer.text) if answer.dense else [answer.text.replace("’", "'")]
    if not any(REFUSING.search(piece) or is_refusal(piece) for piece in pieces):
        return False
    new = answer.content.keys() - question.content.keys()
    return not any(new & reference.content.keys() for reference in references)


def _copies_question(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    """Most of the question in its own order, and not one word of a reference added."""
    if answer.length < max(5, 0.5 * question.length):
        return False
    _, precision, _ = overlap(question.bigrams, answer.bigrams)
    new = answer.content.keys() - question.content.keys()
    return precision >= 0.8 and not any(new & reference.content.keys() for reference in references)


def _nearness(question: Text, references: Sequence[Text], best: Text, answer: Text) -> float:
    """How near to anything known of the question, in words and in the embedding; below 1 is off the topic."""
    short = answer.analysis.length < _SHORT
    if short and best.analysis.verdict * answer.analysis.verdict > 0:
        return 1.0  # "no" is an answer
    terms = set(question.analysis.content).union(*(text.analysis.content for text in references))
    found = answer.analysis.content.keys()
    shared = len(terms & found) / max(1, len(found))
    if answer.encoded is None:
        return shared / 0.1
    known = [text.encoded for text in (question, *references) if text.encoded is not None]
    nearest = max(float(answer.encoded.vector @ encoded.vector) for encoded in known)
    return (nearest + 2 * shared) / (0.5 if short else 0.75)


def _denies(reference: Analysis, answer: Analysis) -> bool:
    """A denial in front of what the reference says, where the reference itself says no such thing."""
    denial = DENIAL.search(answer.text)
    if answer.length < 6 or denial is None:
        return False
    _, precision, _ = overlap(reference.bigrams, answer.bigrams)
    if reference.verdict < 0 or DENIAL.search(reference.text):
        # "False, …" is then what is wanted; a denial of that very verdict is not.
        return precision > 0.75 and bool(NO.search(answer.text[denial.end() :]))
    return precision > 0.5


def _is_foreign(reference: Analysis, answer: Analysis) -> bool:
    """Words in another script; formulas have no script."""
    if reference.dense == answer.dense:
        return False
    spaced = answer if reference.dense else reference
    return sum(token.isalpha() and len(token) > 2 for token in spaced.tokens) >= 5
