"""Free-text answers to scores: analyse, encode once, guard, regress."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cinnabar_grader.semantic.encoders import Encoder, MiniLm, ModelMissing, UseM3
from cinnabar_grader.semantic.features import EMBEDDING, LEXICAL, Text, features
from cinnabar_grader.semantic.guards import Verdict, guard, is_refusal, without_instructions
from cinnabar_grader.semantic.recent import Recent
from cinnabar_grader.semantic.scores import REVIEWED, Flag, SemanticRequest, SemanticScore
from cinnabar_grader.semantic.terms import key_terms
from cinnabar_grader.semantic.text import Script, analyse, clean, script_of
from cinnabar_grader.semantic.weights import VERSION, Ridge, confidence_inputs, load_weights

__all__ = ["REVIEW_BELOW", "Examined", "SemanticScorer"]

log = logging.getLogger(__name__)

REVIEW_BELOW: Final = 0.45
"""Confidence below which a person should look."""
MAX_REFERENCES: Final = 16
"""References read per request; further ones are ignored."""
_SETTLED_CONFIDENCE: Final = 0.95
_FLAGGED_CONFIDENCE: Final = 0.3
_CACHED_TEXTS: Final = 512
"""References and questions kept encoded: at most 0.4 MB each, 0.1 MB on average."""
_NAMES: Final = LEXICAL + EMBEDDING
_RECALL, _SHORT, _SOFT = _NAMES.index("recall"), _NAMES.index("short"), _NAMES.index("soft_recall")


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
        return [self.grade(item) for item in self.examine(requests)]

    def examine(self, requests: Sequence[SemanticRequest]) -> list[Examined]:
        """Everything up to the regression; what the weights are fitted on."""
        prepared = [_prepare(request) for request in requests]
        texts: dict[Script, dict[str, Text]] = {}
        for script in Script:
            chosen = [item for item in prepared if item.script is script and not item.settled]
            texts[script] = self._read(script, chosen)
        return [_examine(item, texts[item.script]) for item in prepared]

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
        fresh = sorted((lasting | answers) - texts.keys())
        encoder = self._encoders[script]
        encoded = encoder.encode(fresh) if encoder is not None and fresh else [None] * len(fresh)
        for text, vectors in zip(fresh, encoded, strict=True):
            texts[text] = Text(analyse(text), vectors)
            if text in lasting:
                self._known.put((script, text), texts[text])
        return texts

    def grade(self, item: Examined) -> SemanticScore:
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
            fraction = min(fraction, item.ceiling)
        if item.unreferenced:
            confidence = 0.0
        elif any(flag in REVIEWED for flag in item.flags):
            confidence = min(confidence, _FLAGGED_CONFIDENCE)
        return SemanticScore(
            fraction=fraction,
            confidence=confidence,
            flags=item.flags,
            needs_review=confidence < REVIEW_BELOW,
            covered=item.terms[0],
            missing=item.terms[1],
            fallback=encoder is None,
            model=f"lexical@{VERSION}"
            if encoder is None
            else f"{encoder.name}+ridge-{item.script.value}@{VERSION}",
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
    logit = confidence_inputs(prediction, row[[_RECALL]], row[[_SHORT]]) @ ridge.confidence
    return float(prediction[0]), float(1 / (1 + np.exp(-logit[0])))


def _prepare(request: SemanticRequest) -> _Prepared:
    question, _ = clean(request.question)
    references = tuple(filter(None, (clean(text)[0] for text in request.references[:MAX_REFERENCES])))
    script = script_of((question, *references))
    answer, cut = clean(request.answer)
    flags: set[Flag] = {Flag.TRUNCATED} if cut else set()
    exact = bool(answer) and answer in references
    if not exact:
        if is_refusal(answer):
            flags.add(Flag.REFUSAL)
        remaining, instructed = without_instructions(answer, dense=script is Script.CHINESE)
        if instructed:
            flags.add(Flag.INSTRUCTION_LIKE)
            answer = remaining
        if not any(c.isalnum() for c in answer):
            flags.add(Flag.EMPTY)
    return _Prepared(script, question, references, answer, frozenset(flags), exact)


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
