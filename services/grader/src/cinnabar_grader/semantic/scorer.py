"""Free-text answers to scores: analyse, encode once, guard, regress."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from cinnabar_grader.semantic.calibration import UNCALIBRATED, Calibration
from cinnabar_grader.semantic.encoders import (
    ANSWER_PIECES,
    MAX_PIECES,
    Encoder,
    MiniLm,
    ModelMissing,
    UseM3,
)
from cinnabar_grader.semantic.features import EMBEDDING, LEXICAL, Text, features
from cinnabar_grader.semantic.guards import Verdict, guard, is_apology, is_refusal, without_instructions
from cinnabar_grader.semantic.recent import Recent
from cinnabar_grader.semantic.scores import REVIEWED, Flag, SemanticRequest, SemanticScore
from cinnabar_grader.semantic.strays import strays
from cinnabar_grader.semantic.terms import key_terms
from cinnabar_grader.semantic.text import Script, analyse, clean, script_of
from cinnabar_grader.semantic.weights import (
    CONFIDENCE_FEATURES,
    VERSION,
    Ridge,
    confidence_inputs,
    load_weights,
)

__all__ = ["REVIEW_BELOW", "Examined", "SemanticScorer"]

log = logging.getLogger(__name__)

REVIEW_BELOW: Final = 0.2
"""Confidence below which a person should look: less than one chance in five to be close to a teacher. What
that catches is in the model card."""
MAX_REFERENCES: Final = 16
"""References read per request; further ones are ignored."""
_SETTLED_CONFIDENCE: Final = 0.95
_FLAGGED_CONFIDENCE: Final = 0.3
_CACHED_TEXTS: Final = 512
"""References and questions kept encoded: at most 0.4 MB each, 0.1 MB on average."""
_NAMES: Final = LEXICAL + EMBEDDING
_RECALL, _SOFT = _NAMES.index("recall"), _NAMES.index("soft_recall")
_TRUST: Final = [_NAMES.index(name) for name in CONFIDENCE_FEATURES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A request after the guards, before the regression."""

    script: Script
    features: npt.NDArray[np.float64] | None
    """As `features.features` makes them, for the closest reference; None when a guard settled the score."""
    flags: tuple[Flag, ...]
    ceiling: float
    unreferenced: bool
    """There was no reference to compare with."""
    exact: bool
    """The answer is a reference, letter for letter."""
    terms: tuple[tuple[str, ...], tuple[str, ...]]
    """Covered and missing key terms."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    script: Script
    question: str
    references: tuple[str, ...]
    answer: str
    flags: frozenset[Flag]
    exact: bool
    sentences: bool

    @property
    def settled(self) -> bool:
        return not self.references or bool(self.flags & {Flag.EMPTY, Flag.REFUSAL})


class SemanticScorer:
    """Scores free text against reference answers. One instance serves all threads of a process."""

    def __init__(self, *, english: Encoder | None, multilingual: Encoder | None) -> None:
        """For tests and fitting; else use `load`. Without an encoder a script is scored on words alone."""
        self._encoders: dict[Script, Encoder | None] = {
            Script.ENGLISH: english,
            Script.CHINESE: multilingual,
            Script.OTHER: multilingual,
        }
        self._weights = load_weights()
        self._known: Recent[tuple[Script, str], Text] = Recent(_CACHED_TEXTS)

    @classmethod
    def load(cls, *, threads: int = 1) -> "SemanticScorer":
        """Find and check the models; a missing or altered one is logged and done without.

        `threads` is what one pass of the English model may use; the numpy encoder takes what its BLAS may.
        """
        return cls(
            english=_found("english", lambda: MiniLm(threads=threads)),
            multilingual=_found("multilingual", UseM3),
        )

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        """One score per request, in order; unique texts pass the model once. No text makes it raise."""
        examined = self.examine(requests)
        return [
            self.grade(item, request.calibration) for item, request in zip(examined, requests, strict=True)
        ]

    def examine(self, requests: Sequence[SemanticRequest]) -> list[Examined]:
        """Everything up to the regression; what the weights are fitted on."""
        prepared = [_prepare(request) for request in requests]
        texts: dict[Script, dict[str, Text]] = {}
        for script in Script:
            chosen = [item for item in prepared if item.script is script and not item.settled]
            texts[script] = self._read(script, chosen)
        return [self._examine(item, texts[item.script]) for item in prepared]

    def _examine(self, item: _Prepared, texts: dict[str, Text]) -> Examined:
        examined = _examine(item, texts)
        encoder = self._encoders[item.script]
        if not item.sentences or item.settled or item.exact or encoder is None:
            return examined
        known = [texts[text] for text in (item.question, *item.references)]
        if not strays(encoder, known, item.answer):
            return examined
        return replace(examined, flags=_ordered({*examined.flags, Flag.STRAY}))

    def _read(self, script: Script, items: Iterable[_Prepared]) -> dict[str, Text]:
        """Every text of `items`, analysed and encoded; references and questions are remembered."""
        lasting: set[str] = set()
        answers: set[str] = set()
        for item in items:
            lasting.update((item.question, *item.references))
            answers.add(item.answer)
        texts: dict[str, Text] = {}
        for text in sorted(lasting):
            known = self._known.get((script, text))
            if known is not None:
                texts[text] = known
        for text, encoded in self._encoded(script, sorted(lasting - texts.keys()), MAX_PIECES):
            texts[text] = encoded
            self._known.put((script, text), encoded)
        texts.update(self._encoded(script, sorted(answers - texts.keys()), ANSWER_PIECES))
        return texts

    def _encoded(self, script: Script, texts: Sequence[str], pieces: int) -> Iterable[tuple[str, Text]]:
        encoder = self._encoders[script]
        encoded = (
            encoder.encode(texts, pieces=pieces) if encoder is not None and texts else [None] * len(texts)
        )
        return [(text, Text(analyse(text), vectors)) for text, vectors in zip(texts, encoded, strict=True)]

    def grade(self, item: Examined, calibration: Calibration = UNCALIBRATED) -> SemanticScore:
        """The regression and the verdict for one examined request."""
        lexical = item.features is None or len(item.features) == len(LEXICAL)
        encoder = self._encoders[item.script]
        family = "zh" if item.script is Script.CHINESE else "en"
        name = f"lexical-{family}" if lexical else item.script.value
        fraction, confidence = 0.0, _SETTLED_CONFIDENCE
        if item.exact:
            fraction = item.ceiling
        elif item.features is not None:
            fraction, confidence = _apply(self._weights[name], item.features)
            fraction = min(calibration.apply(fraction), item.ceiling)
        flagged = any(flag in REVIEWED for flag in item.flags)
        if item.unreferenced:
            confidence = 0.0
        elif flagged:
            confidence = min(confidence, _FLAGGED_CONFIDENCE)
        model = f"lexical@{VERSION}"
        if encoder is not None:
            model = f"{encoder.name}+ridge-{item.script.value}@{VERSION}"
        if calibration.graded:
            model += f"+calibrated-{calibration.graded}"
        return SemanticScore(
            fraction=fraction,
            confidence=confidence,
            flags=item.flags,
            needs_review=flagged or confidence < REVIEW_BELOW,
            covered=item.terms[0],
            missing=item.terms[1],
            fallback=encoder is None,
            model=model,
        )


def _found(language: str, load: Callable[[], Encoder]) -> Encoder | None:
    try:
        return load()
    except ModelMissing as reason:
        log.warning("%s model not used, scoring on words alone: %s", language, reason)
        return None


def _apply(ridge: Ridge, row: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Fraction and confidence for one feature row."""
    used = row[[_NAMES.index(name) for name in ridge.names]][None]
    prediction = ridge.predict(used)
    inputs = confidence_inputs(prediction, row[[index for index in _TRUST if index < len(row)]][None])
    logit = inputs @ ridge.confidence
    return float(prediction[0]), float(1 / (1 + np.exp(-logit[0])))


@lru_cache(maxsize=128)
def _asked(question: str, references: tuple[str, ...]) -> tuple[str, tuple[str, ...], Script]:
    """Question and references, clean, and their script: the same for all answers of an item."""
    cleaned = tuple(filter(None, (clean(text)[0] for text in references)))
    question = clean(question)[0]
    return question, cleaned, script_of((question, *cleaned))


def _prepare(request: SemanticRequest) -> _Prepared:
    question, references, script = _asked(request.question, request.references[:MAX_REFERENCES])
    answer, cut = clean(request.answer)
    flags: set[Flag] = {Flag.TRUNCATED} if cut else set()
    exact = bool(answer) and answer in references
    if not exact:
        if is_refusal(answer):
            flags.add(Flag.REFUSAL)
        remaining, instructed = without_instructions(
            answer, dense=script is Script.CHINESE, known="\n".join((question, *references))
        )
        if instructed and not any(c.isalnum() for c in remaining) and is_apology(answer):
            flags.add(Flag.REFUSAL)
        elif instructed:
            flags.add(Flag.INSTRUCTION_LIKE)
            answer = remaining
        if not any(c.isalnum() for c in answer):
            flags.add(Flag.EMPTY)
    return _Prepared(script, question, references, answer, frozenset(flags), exact, request.sentences)


def _examine(item: _Prepared, texts: dict[str, Text]) -> Examined:
    if item.settled:
        return Examined(
            script=item.script,
            features=None,
            flags=_ordered(item.flags),
            ceiling=0.0,
            unreferenced=not item.references,
            exact=False,
            terms=((), ()),
        )
    question, answer = texts[item.question], texts[item.answer]
    references = [texts[text] for text in item.references]
    rows = [features(question, reference, answer) for reference in references]
    closest = (
        item.references.index(item.answer)
        if item.exact
        else max(range(len(rows)), key=lambda i: _closeness(rows[i]))
    )
    best = references[closest]
    verdict = Verdict() if item.exact else guard(question, references, best, answer)
    return Examined(
        script=item.script,
        features=None if verdict.settled else rows[closest],
        flags=_ordered(item.flags.union(verdict.flags)),
        ceiling=verdict.ceiling,
        unreferenced=False,
        exact=item.exact,
        terms=key_terms(question.analysis, best.analysis, answer.analysis),
    )


def _closeness(row: npt.NDArray[np.float64]) -> float:
    return float(row[_RECALL]) + (float(row[_SOFT]) if len(row) > len(LEXICAL) else 0.0)


def _ordered(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    found = set(flags)
    return tuple(flag for flag in Flag if flag in found)
