"""Free text: what the adapter makes of the scores of the semantic scorer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cinnabar_grader.free_text import Criterion, FreeTextGrader, FreeTextItem, feedback_of
from cinnabar_grader.graders import Failed, Graded, LeaseToken, NumberAnswer, Task
from cinnabar_grader.phrases import Language
from cinnabar_grader.pipeline import graded
from cinnabar_grader.points import total_of
from cinnabar_grader.semantic import Flag, SemanticRequest, SemanticScore, SemanticScorer

RUBRIC = (
    Criterion("density", "ice is less dense than water", 3),
    Criterion("cause", "water expands when it freezes", 1),
)
REFERENCE = "Ice is less dense than liquid water, because water expands when it freezes."


def score(
    fraction: float,
    *,
    flags: tuple[Flag, ...] = (),
    covered: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    confidence: float = 0.8,
) -> SemanticScore:
    return SemanticScore(
        fraction=fraction,
        confidence=confidence,
        flags=flags,
        needs_review=confidence < 0.45,
        covered=covered,
        missing=missing,
        fallback=False,
        model="m@1",
    )


class Fixed:
    """A scorer that knows what to say: by reference, else by default."""

    def __init__(self, whole: SemanticScore, **by_reference: float) -> None:
        self._whole = whole
        self._by_reference = by_reference
        self.calls = 0

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        self.calls += 1
        if any("crash" in request.answer for request in requests):
            raise RuntimeError("no")
        return [
            score(self._by_reference[key])
            if (key := request.references[0]) in self._by_reference
            else self._whole
            for request in requests
        ]


def item(points: float = 4, criteria: Sequence[Criterion] = ()) -> FreeTextItem:
    return FreeTextItem(
        points=points, question="Why does ice float?", references=[REFERENCE], criteria=criteria
    )


def task(name: str, answer: object = "because", of: object = None) -> Task:
    return Task(LeaseToken(name), "free-text", of or item(), answer)  # pyright: ignore[reportArgumentType]


def test_without_a_rubric_there_is_one_criterion() -> None:
    (grade,) = FreeTextGrader(Fixed(score(1 / 3, confidence=0.7))).grade([task("a", of=item(10))])
    assert isinstance(grade, Graded)
    assert (grade.score, grade.max_score) == (3.33, 10)
    assert [(part.criterion, part.score, part.confidence) for part in grade.criteria] == [
        ("answer", 3.33, 0.7)
    ]
    assert (grade.provenance.grader, grade.provenance.model) == ("semantic", "m@1")
    assert not grade.needs_review


def test_a_rubric_splits_the_score_towards_what_matches() -> None:
    rubric = (Criterion("a", "first", 2), Criterion("b", "second", 2))
    scorer = Fixed(score(0.5), first=0.9, second=0.3)
    (grade,) = FreeTextGrader(scorer).grade([task("a", of=item(4, rubric))])
    assert isinstance(grade, Graded)
    assert grade.score == 2
    assert [part.score for part in grade.criteria] == [1.6, 0.4]
    assert [part.feedback for part in grade.criteria] == ["Covered.", "Not covered."]


@pytest.mark.parametrize("fraction", [0, 0.1, 1 / 3, 0.5, 2 / 3, 0.9, 1])
def test_criteria_add_up(fraction: float) -> None:
    rubric = [Criterion(str(number), f"part {number}", 0.7) for number in range(3)]
    (grade,) = FreeTextGrader(Fixed(score(fraction))).grade([task("a", of=item(2.1, rubric))])
    assert isinstance(grade, Graded)
    assert total_of([part.score for part in grade.criteria]) == grade.score <= grade.max_score
    assert grade.score == pytest.approx(2.1 * fraction, abs=0.03)


def test_a_batch_is_scored_in_one_call_and_bad_tasks_fail_alone() -> None:
    scorer = Fixed(score(0.5))
    outcomes = FreeTextGrader(scorer).grade([task("a"), task("b", NumberAnswer(1)), task("c")])
    assert scorer.calls == 1
    assert {outcome.token: type(outcome) for outcome in outcomes} == {"a": Graded, "b": Failed, "c": Graded}


def test_an_answer_that_breaks_the_scorer_fails_alone() -> None:
    outcomes = graded(FreeTextGrader(Fixed(score(0.5))), [task("a"), task("b", "crash"), task("c")])
    assert {outcome.token: type(outcome) for outcome in outcomes} == {"a": Graded, "b": Failed, "c": Graded}


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, 1.1, float("inf")])
def test_a_score_that_is_none_is_a_failure(fraction: float) -> None:
    (outcome,) = graded(FreeTextGrader(Fixed(score(fraction))), [task("a")])
    assert isinstance(outcome, Failed)


def test_flags_and_review_are_passed_on() -> None:
    whole = score(0.2, flags=(Flag.OFF_TOPIC, Flag.TRUNCATED), confidence=0.3)
    (grade,) = FreeTextGrader(Fixed(whole)).grade([task("a")])
    assert isinstance(grade, Graded)
    assert grade.flags == ["OFF_TOPIC", "TRUNCATED"]
    assert grade.needs_review
    assert "something else" in grade.feedback
    assert grade.feedback.endswith("A person will look at this grade.")


@pytest.mark.parametrize(
    ("given", "language", "feedback"),
    [
        (
            score(1.0, covered=("density",)),
            Language.ENGLISH,
            "The answer says what was asked for. Covered: density.",
        ),
        (
            score(0.5, covered=("density",), missing=("freezing", "expands")),
            Language.ENGLISH,
            "The answer says part of what was asked for. Covered: density. Missing: freezing, expands.",
        ),
        (score(0.0, flags=(Flag.EMPTY,), missing=("x",)), Language.ENGLISH, "There is no answer to grade."),
        (
            score(0.5, covered=("密度",), missing=("结冰", "膨胀")),
            Language.CHINESE,
            "回答了部分要点。已答出：密度。缺少：结冰、膨胀。",
        ),
        (
            score(0.1, flags=(Flag.KEYWORD_LIST,), confidence=0.3),
            Language.CHINESE,
            "回答的要点很少。回答只罗列了词语，没有说明。此评分将由人工复核。",
        ),
    ],
)
def test_feedback(given: SemanticScore, language: Language, feedback: str) -> None:
    assert feedback_of(given, language) == feedback


def test_feedback_is_in_the_students_language() -> None:
    (grade,) = FreeTextGrader(Fixed(score(0.5))).grade([task("a", "因为冰的密度更小")])
    assert isinstance(grade, Graded)
    assert grade.feedback == "回答了部分要点。"


@pytest.mark.parametrize(
    ("references", "criteria", "words"),
    [([], (), "no reference"), ([REFERENCE], (Criterion("a", "b", 1),), "do not add up")],
)
def test_broken_specifications(references: list[str], criteria: Sequence[Criterion], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FreeTextItem(points=4, references=references, criteria=criteria)


def test_without_models_the_words_decide_and_the_grade_says_so() -> None:
    grader = FreeTextGrader(SemanticScorer(english=None, multilingual=None))
    answers = [REFERENCE, "Because ice is less dense than water.", "", "Penguins like it."]
    outcomes = grader.grade([task(str(n), answer, item(4, RUBRIC)) for n, answer in enumerate(answers)])
    grades = [outcome for outcome in outcomes if isinstance(outcome, Graded)]
    assert all(grade.provenance.fallback and grade.provenance.model for grade in grades)
    full, part, empty, other = [grade.score for grade in grades]
    assert full == 4 >= part > other >= empty == 0
    for grade in grades:
        density, cause = grade.criteria
        assert total_of([density.score, cause.score]) == grade.score
