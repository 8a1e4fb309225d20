"""Rules that speak before the regression, each with a reason code. Thresholds: see the model card's table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cinnabar_grader.semantic.features import Text, overlap
from cinnabar_grader.semantic.lexicon import DENIAL, INSTRUCTIONS, LISTING, NO, REFUSALS
from cinnabar_grader.semantic.scores import Flag
from cinnabar_grader.semantic.text import Analysis, clauses

__all__ = ["Verdict", "guard", "is_refusal", "without_instructions"]

_EDGES: Final = " .!?,;:-_~^*()[]'\"。！？，；：、…～（）"
_SEPARATOR: Final = re.compile(r"[,，、;；/|\n•]|\s-\s")
_DOUBTED: Final = 0.2
"""At most this for a denied or scrambled reference or a few words off the topic: teachers give 0."""
_SHORT: Final = 8
"""Tokens below which an answer has little to be far from the topic with."""


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


def without_instructions(text: str, *, dense: bool) -> tuple[str, bool]:
    """`text` without its sentences that address the grader, and whether there were any."""
    if not any(pattern.search(text) for pattern in INSTRUCTIONS):
        return text, False
    kept = [
        piece
        for piece in clauses(text, dense=dense, limit=200)
        if not any(p.search(piece) for p in INSTRUCTIONS)
    ]
    return ". ".join(kept), True


def guard(question: Text, references: Sequence[Text], best: Text, answer: Text) -> Verdict:
    """Judge an `answer` that has words and is no refusal. `best` is the closest of the `references`.

    Only what real answers hardly ever trip lowers the score; the other guards ask for a person.
    """
    asked, wanted, given = question.analysis, best.analysis, answer.analysis
    if _copies_question(asked, [text.analysis for text in references], given):
        return Verdict((Flag.QUESTION_COPY,), 0.0, settled=True)
    flags: list[Flag] = []
    denied, salad = _denies(wanted, given), _is_salad(wanted, given)
    off_topic = _is_off_topic(question, references, best, answer)
    if off_topic:
        flags.append(Flag.OFF_TOPIC)
    if denied:
        flags.append(Flag.NEGATION_MISMATCH)
    if _lists_keywords(asked, wanted, given):
        flags.append(Flag.KEYWORD_LIST)
    if salad:
        flags.append(Flag.WORD_SALAD)
    if _is_foreign(wanted, given):
        flags.append(Flag.SCRIPT_MISMATCH)
    worthless = denied or salad or (off_topic and given.length < _SHORT)
    return Verdict(tuple(flags), _DOUBTED if worthless else 1.0)


def _copies_question(question: Analysis, references: Sequence[Analysis], answer: Analysis) -> bool:
    """Most of the question in its own order, and not one word of a reference added."""
    if answer.length < max(5, 0.5 * question.length):
        return False
    _, precision, _ = overlap(question.bigrams, answer.bigrams)
    new = answer.content.keys() - question.content.keys()
    return precision >= 0.8 and not any(new & reference.content.keys() for reference in references)


def _is_off_topic(question: Text, references: Sequence[Text], best: Text, answer: Text) -> bool:
    """Far from everything known of the question, in words and in the embedding together."""
    short = answer.analysis.length < _SHORT
    if short and best.analysis.verdict * answer.analysis.verdict > 0:
        return False  # "no" is an answer
    terms = set(question.analysis.content).union(*(text.analysis.content for text in references))
    found = answer.analysis.content.keys()
    shared = len(terms & found) / max(1, len(found))
    if answer.encoded is None:
        return shared < 0.1
    known = [text.encoded for text in (question, *references) if text.encoded is not None]
    nearest = max(float(answer.encoded.vector @ encoded.vector) for encoded in known)
    return nearest + 2 * shared < (0.5 if short else 0.75)


def _denies(reference: Analysis, answer: Analysis) -> bool:
    """A denial in front of what the reference says, where the reference itself says no such thing."""
    denial = DENIAL.search(answer.text)
    if answer.length < 6 or denial is None:
        return False
    _, precision, _ = overlap(reference.bigrams, answer.bigrams)
    if reference.verdict < 0 or DENIAL.search(reference.text):
        # "False, …" is then what is wanted; a denial of that very verdict is not.
        return precision > 0.8 and bool(NO.search(answer.text[denial.end() :]))
    return precision > 0.5


def _lists_keywords(question: Analysis, reference: Analysis, answer: Analysis) -> bool:
    """Many short pieces, or words without any function words, most of them the reference's."""
    if answer.length < 5 or reference.length < 10 or len(reference.text) < (20 if reference.dense else 40):
        return False
    pieces = [piece.split() for piece in _SEPARATOR.split(answer.text) if piece.strip()]
    enough = 12 if LISTING.search(question.text) else 5
    if answer.dense:
        bare = len(pieces) >= enough and len("".join(map("".join, pieces))) <= 4.5 * len(pieces)
    else:
        listed = len(pieces) >= enough and sum(map(len, pieces)) <= 2 * len(pieces)
        unbound = answer.length >= enough + 2 and answer.functions <= 0.05 * answer.length
        bare = listed or (unbound and reference.functions >= 0.2 * reference.length)
    _, precision, _ = overlap(reference.content, answer.content)
    return bare and (answer.dense or precision > 0.4)


def _is_salad(reference: Analysis, answer: Analysis) -> bool:
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
        return neighbours < 0.3 and shared > (0.75 if answer.dense else 0.85)
    return neighbours < 0.1 and shared > 0.85 and answer.length >= 10


def _is_foreign(reference: Analysis, answer: Analysis) -> bool:
    """Words in another script; formulas have no script."""
    if reference.dense == answer.dense:
        return False
    spaced = answer if reference.dense else reference
    return sum(token.isalpha() and len(token) > 2 for token in spaced.tokens) >= 5
