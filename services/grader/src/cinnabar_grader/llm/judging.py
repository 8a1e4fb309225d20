"""From what a model says to a grade: evidence, agreement, a second opinion, and who should look at it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cinnabar_grader.free_text import Criterion
from cinnabar_grader.graders import CriterionScore
from cinnabar_grader.llm.evidence import Quotable
from cinnabar_grader.llm.replies import Judgement, Reply
from cinnabar_grader.points import score_of, total_of

DISAGREEING = 0.2
"""Samples whose scores of a criterion, or of the whole, are farther apart than this share disagree."""
SECOND_OPINION = 0.5
"""A grade farther than this share of the points from the semantic one is looked at; see docs/llm-grading.md
for what that costs."""


class ModelFlag(StrEnum):
    """Why a person should look at the grade of a model. Stable reason codes."""

    EVIDENCE_MISSING = "EVIDENCE_MISSING"
    """Points without a quotation that occurs in the answer."""
    DISAGREEMENT = "DISAGREEMENT"
    """Asked several times, it gave different points."""
    LOW_CONFIDENCE = "LOW_CONFIDENCE"
    """It is less sure than the item wants."""
    SECOND_OPINION = "SECOND_OPINION"
    """The semantic grader says something quite different."""
    SAMPLES_MISSING = "SAMPLES_MISSING"
    """It was to be asked more often than it answered."""
    CANARY = "CANARY"
    """Its reply gave its instructions away; it does not count."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The parts of a grade, and why a person should look at it."""

    criteria: list[CriterionScore]
    score: float
    feedback: str
    flags: list[ModelFlag]


def judge(
    criteria: Sequence[Criterion],
    replies: Sequence[Reply],
    answer: str,
    *,
    samples: int,
    review_below: float,
    second: float | None,
) -> Judged:
    """What ``replies`` (at least one) to the same answer come to; the median where they differ.

    ``second`` is the fraction of the points that the semantic grader gives, if it gives any.
    """
    quotable = Quotable(answer)
    found: set[ModelFlag] = set()
    scores: list[CriterionScore] = []
    for index, criterion in enumerate(criteria):
        judgements = [reply.criteria[index] for reply in replies]
        score = _score(criterion, judgements, quotable)
        scores.append(score)
        if score.score > 0 and not score.evidence:
            found.add(ModelFlag.EVIDENCE_MISSING)
        if score.confidence < review_below:
            found.add(ModelFlag.LOW_CONFIDENCE)
        if _spread([judgement.points for judgement in judgements]) > DISAGREEING * criterion.points:
            found.add(ModelFlag.DISAGREEMENT)
    points = sum(criterion.points for criterion in criteria)
    totals = [sum(judgement.points for judgement in reply.criteria) for reply in replies]
    if _spread(totals) > DISAGREEING * points:
        found.add(ModelFlag.DISAGREEMENT)
    total = min(points, total_of([score.score for score in scores]))
    if second is not None and abs(total / points - second) > SECOND_OPINION:
        found.add(ModelFlag.SECOND_OPINION)
    if len(replies) < samples:
        found.add(ModelFlag.SAMPLES_MISSING)
    return Judged(scores, total, replies[0].feedback, [flag for flag in ModelFlag if flag in found])


def _score(criterion: Criterion, judgements: Sequence[Judgement], quotable: Quotable) -> CriterionScore:
    points = statistics.median(judgement.points for judgement in judgements)
    quotations = [text for judgement in judgements if judgement.points > 0 for text in judgement.evidence]
    apart = _spread([judgement.points for judgement in judgements]) / criterion.points
    return CriterionScore(
        criterion.criterion,
        score_of(points / criterion.points, criterion.points),
        criterion.points,
        judgements[0].feedback,
        min(statistics.fmean(judgement.confidence for judgement in judgements), 1 - apart),
        quotable.found(quotations)[:20] if points > 0 else (),
    )


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)
