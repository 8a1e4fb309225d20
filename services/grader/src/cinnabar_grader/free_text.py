"""Free-text items, graded by the semantic scorer.

The score of the whole answer is the scorer's fraction, which is what was measured against human
scores. A rubric splits it: each criterion's description is scored as if it were a reference, and
`points.apportion` gives better matched criteria more, so that the parts add up to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cinnabar_grader.calibrating import MAX_EXAMPLES, Calibrations, GradedAnswer, Scorer
from cinnabar_grader.graders import (
    ANSWER,
    CriterionScore,
    Failed,
    Graded,
    Outcome,
    Provenance,
    Released,
    Task,
    Ungradable,
    checked,
)
from cinnabar_grader.phrases import Language, known, language_of, phrase
from cinnabar_grader.points import apportion, score_of, total_of
from cinnabar_grader.semantic import Calibration, SemanticRequest, SemanticScore

VERSION = "2"
MAX_SAMPLES = 5
"""Times that a language model is asked the same at most."""

# Shares of the points at which the words change.
_FULL, _MOST, _PART, _COVERED = 0.95, 0.7, 0.35, 0.8
_SETTLING = frozenset({"EMPTY", "REFUSAL", "QUESTION_COPY"})


@dataclass(slots=True, frozen=True)
class Criterion:
    """One part of a rubric."""

    criterion: str
    description: str
    points: float


@dataclass(slots=True, frozen=True, kw_only=True)
class LlmRule:
    """How a language model grades an item. Texts and numbers as in `LlmSpec`; ``samples`` is 1 or more."""

    model: str = ""
    instructions: str = ""
    samples: int = 1
    review_below: float = 0.0
    upgrade_fallbacks: bool = False


class FreeTextItem:
    """A compiled free-text item. ValueError when the specification makes no sense."""

    def __init__(
        self,
        *,
        points: float,
        question: str = "",
        references: Sequence[str],
        criteria: Sequence[Criterion] = (),
        llm: LlmRule | None = None,
        examples: Sequence[GradedAnswer] = (),
    ) -> None:
        """``llm``: a language model grades it, of the queue "llm". With 10 ``examples`` or more the scale
        of the semantic grader is fitted to them."""
        if not references:
            raise ValueError("there is no reference answer")
        if criteria and abs(sum(part.points for part in criteria) - points) > 1e-6 * points:
            raise ValueError("the criteria do not add up to the points of the item")
        if len(examples) > MAX_EXAMPLES:
            raise ValueError(f"there are more than {MAX_EXAMPLES} graded examples")
        if not all(0 <= example.fraction <= 1 for example in examples):
            raise ValueError("a graded example has less than no points or more than the item")
        self.points = points
        self.language = language_of(question, *references)
        self.question = question
        self.references = tuple(references)
        self.criteria = tuple(criteria)
        self.llm = llm
        self.examples = tuple(examples)

    def requests(self, answer: str, calibration: Calibration) -> list[SemanticRequest]:
        """What to score: the answer against the references, on the teacher's scale, then against each
        criterion."""
        whole = SemanticRequest(
            question=self.question,
            references=self.references,
            answer=answer,
            sentences=self.llm is not None,  # a language model can be talked into something
            calibration=calibration,
        )
        return [
            whole,
            *(
                SemanticRequest(question=self.question, references=(part.description,), answer=answer)
                for part in self.criteria
            ),
        ]


class FreeTextGrader:
    """Grades the queue "free-text"."""

    name = "semantic"
    version = VERSION
    queue = "free-text"
    batch_limit = 24  # some 0.1 s: a cancelled or drained batch holds nobody up for longer

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._calibrations = Calibrations(scorer)

    def blocking(self, batch: Sequence[Task]) -> bool:
        """Always."""
        return bool(batch)

    def grade(self, batch: Sequence[Task]) -> list[Outcome]:
        """One outcome per task that is still wanted.

        While the scale of an item is being learned its tasks are handed back, to come again: other items'
        tasks do not wait for it. Raises what the scorer raises; ValueError when its score is none.
        """
        started = time.perf_counter()
        outcomes: list[Outcome] = []
        jobs: list[tuple[Task, FreeTextItem, str]] = []
        requests: list[SemanticRequest] = []
        learned = False
        for task in batch:
            if task.cancelled:
                continue
            try:
                item, answer = checked(task, FreeTextItem, str)
            except Ungradable as error:
                outcomes.append(Failed(task.token, error.code, error.message))
                continue
            calibration = self._calibration(task, item, learn=not learned)
            if calibration is None:
                learned = True  # one slice a call
                outcomes.append(Released(task.token))
                continue
            jobs.append((task, item, answer))
            requests += item.requests(answer, calibration)
        scores = iter(self._scorer.score(requests) if requests else ())
        scored = [(*job, [next(scores) for _ in range(1 + len(job[1].criteria))]) for job in jobs]
        seconds = (time.perf_counter() - started) / len(batch)
        outcomes += [self._graded(*entry, seconds) for entry in scored]
        return outcomes

    def _calibration(self, task: Task, item: FreeTextItem, *, learn: bool) -> Calibration | None:
        """The scale of the item; None when it is still being learned, of which this does a part."""
        key = task.item_key or (item.question, item.references, item.examples)
        if learn and self._calibrations.known(key, item) is None:
            self._calibrations.advance(key, item)
        while task.queue != self.queue and self._calibrations.known(key, item) is None:
            self._calibrations.advance(key, item)  # stands in for another grader, which wants a grade
        return self._calibrations.known(key, item)

    def _graded(
        self, task: Task, item: FreeTextItem, answer: str, scores: Sequence[SemanticScore], seconds: float
    ) -> Graded:
        if not all(0 <= score.fraction <= 1 for score in scores):
            raise ValueError("the scorer left the range of 0 to 1")
        whole, parts = scores[0], scores[1:]
        language = language_of(answer, item.question, item.references[0])
        if item.criteria:
            criteria = _criteria(item.criteria, whole, parts, language)
        else:
            score = score_of(whole.fraction, item.points)
            criteria = [CriterionScore(ANSWER, score, item.points, confidence=whole.confidence)]
        total = min(item.points, total_of([part.score for part in criteria]))
        return Graded(
            task.token,
            total,
            item.points,
            criteria,
            feedback_of(whole, language),
            Provenance(self.name, self.version, whole.model, whole.fallback, seconds),
            whole.needs_review,
            [str(flag) for flag in whole.flags],
        )


def feedback_of(score: SemanticScore, language: Language) -> str:
    """What the student reads: how much is there, what is covered and missing, why flags were raised."""
    flags = [str(flag) for flag in score.flags]
    sentences: list[str] = []
    if not _SETTLING.intersection(flags):
        key = next(
            key
            for least, key in (
                (_FULL, "free_full"),
                (_MOST, "free_most"),
                (_PART, "free_part"),
                (0.0, "free_little"),
            )
            if score.fraction >= least
        )
        sentences.append(phrase(language, key))
        separator = phrase(language, "separator")
        if score.covered:
            sentences.append(phrase(language, "covered", terms=separator.join(score.covered)))
        if score.missing and score.fraction < _FULL:
            sentences.append(phrase(language, "missing", terms=separator.join(score.missing)))
    sentences += [phrase(language, flag) for flag in flags if known(flag)]
    if score.needs_review:
        sentences.append(phrase(language, "review"))
    return phrase(language, "gap").join(sentences)


def _criteria(
    rubric: Sequence[Criterion], whole: SemanticScore, parts: Sequence[SemanticScore], language: Language
) -> list[CriterionScore]:
    scores = apportion(whole.fraction, [part.fraction for part in parts], [part.points for part in rubric])
    return [
        CriterionScore(
            criterion.criterion,
            score,
            criterion.points,
            _criterion_feedback(score / criterion.points, language),
            min(whole.confidence, part.confidence),
        )
        for criterion, score, part in zip(rubric, scores, parts, strict=True)
    ]


def _criterion_feedback(share: float, language: Language) -> str:
    if share >= _COVERED:
        return phrase(language, "criterion_full")
    return phrase(language, "criterion_part" if share >= _PART else "criterion_none")
