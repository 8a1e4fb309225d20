"""What a caller asks the semantic scorer, and what it gets back."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cinnabar_grader.semantic.calibration import UNCALIBRATED, Calibration

__all__ = ["CLOSE", "REVIEWED", "Flag", "SemanticRequest", "SemanticScore"]


CLOSE: Final = 0.15
"""A score is right when it is within this share of the points of the teacher's."""


class Flag(StrEnum):
    """Why a guard fired. Stable reason codes; text for people is made elsewhere."""

    EMPTY = "EMPTY"
    """Nothing to read: no letter and no digit. Scored 0."""
    REFUSAL = "REFUSAL"
    """The answer says that there is none ("I don't know", "no response") and nothing else. Scored 0."""
    QUESTION_COPY = "QUESTION_COPY"
    """The question given back, nothing of a reference added. Scored 0."""
    OFF_TOPIC = "OFF_TOPIC"
    """Far from the references and from the question, in words and in the embedding."""
    NEGATION_MISMATCH = "NEGATION_MISMATCH"
    """A reference's statement, denied (or a denied statement, affirmed)."""
    CONTRADICTION = "CONTRADICTION"
    """A reference's statement with a word turned into its opposite ("more" into "less")."""
    KEYWORD_LIST = "KEYWORD_LIST"
    """Terms without sentences where the reference has sentences."""
    WORD_SALAD = "WORD_SALAD"
    """The reference's words in an order in which they say nothing."""
    INSTRUCTION_LIKE = "INSTRUCTION_LIKE"
    """Text that addresses the grader. It is cut out and the rest is scored."""
    STRAY = "STRAY"
    """A sentence that has nothing to do with the question or its references."""
    SCRIPT_MISMATCH = "SCRIPT_MISMATCH"
    """Written in another script than the references."""
    TRUNCATED = "TRUNCATED"
    """Longer than what is read; only the beginning was scored."""


REVIEWED = frozenset(Flag) - {Flag.EMPTY, Flag.REFUSAL}
"""Flags that ask for a person. An empty answer or a plain refusal needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticRequest:
    """One answer to grade. Texts may be anything a student can send; nothing in them raises."""

    question: str
    references: tuple[str, ...]
    """Model answers, each worth full points by itself. Without any, the score is 0 and needs review."""
    answer: str
    sentences: bool = False
    """Look at every sentence by itself too (`Flag.STRAY`), which costs another pass of the model."""
    calibration: Calibration = UNCALIBRATED
    """The scale of whoever grades; it applies before what guards bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticScore:
    """The grade of one answer."""

    fraction: float
    """0..1 of the points, after the guards."""
    confidence: float
    """0..1: estimated probability that `fraction` is within `CLOSE` of what a teacher gives.

    From a logistic regression on the prediction and the features, fitted on predictions for held-out
    questions. A weak signal: see the model card. Guards that settle the score alone report 0.95 (what
    they measured on real answers); any other guard caps it.
    """
    flags: tuple[Flag, ...]
    """Guards that fired, in the order of `Flag`."""
    needs_review: bool
    """A person should look: a guard of `REVIEWED` fired, or confidence is below `REVIEW_BELOW`."""
    covered: tuple[str, ...]
    """Key terms (or clauses: Chinese, Japanese, Thai) of the closest reference that the answer has."""
    missing: tuple[str, ...]
    """The same, those that it lacks. At most `MAX_TERMS` each, in the reference's order."""
    fallback: bool
    """True when the embedding model was missing and only lexical features were used."""
    model: str
    """Provenance: `minilm-int8@<sha8>+ridge-en@<version>`, `use-m3@…+ridge-zh@…`, `lexical@<version>`;
    `+calibrated-<n>` behind it when n graded answers set the scale."""
