"""Scales of items: learned off the way of other tasks, once, and shown."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from cinnabar.grader.v1.item_pb2 import FreeTextSpec, GradedExample, Item
from cinnabar_grader.calibrating import SLICE, GradedAnswer
from cinnabar_grader.convert import compile_item
from cinnabar_grader.free_text import FreeTextGrader, FreeTextItem
from cinnabar_grader.graders import BrokenItem, Graded, LeaseToken, Outcome, Released, Task
from cinnabar_grader.semantic import Calibration, Flag, SemanticRequest, SemanticScore, SemanticScorer

REFERENCE = "Ice is less dense than liquid water, because water expands when it freezes."


class Reading:
    """A scorer that takes the fraction from the answer's first word, and notes what it was asked."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def score(self, requests: Sequence[SemanticRequest]) -> list[SemanticScore]:
        self.answers += [request.answer for request in requests]
        return [
            SemanticScore(
                fraction=request.calibration.apply(float(request.answer.split()[0])),
                confidence=0.8,
                flags=(Flag.OFF_TOPIC,) if "astray" in request.answer else (),
                needs_review=False,
                covered=(),
                missing=(),
                fallback=False,
                model=f"m+{request.calibration.graded}",
            )
            for request in requests
        ]


def item(examples: int, *, words: str = "well") -> FreeTextItem:
    """Whose teacher gives half of what the scorer gives."""
    fractions = [index / max(1, examples - 1) for index in range(examples)]
    graded = [GradedAnswer(f"{one} {words} {index}", one / 2) for index, one in enumerate(fractions)]
    return FreeTextItem(points=4, question="Why does ice float?", references=[REFERENCE], examples=graded)


def task(name: str, of: FreeTextItem, *, queue: str = "free-text") -> Task:
    return Task(LeaseToken(name), queue, of, "1.0 indeed", item_key=f"r/{len(of.examples)}")


def by_token(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    return {outcome.token: outcome for outcome in outcomes}


def test_tasks_wait_for_the_scale_of_their_item_and_no_others() -> None:
    scorer = Reading()
    grader = FreeTextGrader(scorer)
    slow, quick = item(2 * SLICE + 1), item(0)
    for call in range(2):
        outcomes = by_token(
            grader.grade([task(f"a{call}", slow), task(f"b{call}", quick), task(f"c{call}", slow)])
        )
        assert isinstance(outcomes[f"a{call}"], Released)
        assert isinstance(outcomes[f"c{call}"], Released)
        assert isinstance(outcomes[f"b{call}"], Graded)
        assert len(scorer.answers) == (call + 1) * (SLICE + 1)  # a slice, and the task of another item
    [last] = grader.grade([task("a2", slow)])
    assert isinstance(last, Graded)
    assert last.provenance.model == f"m+{2 * SLICE + 1}"
    assert last.score < 3  # 4 points without the teacher's scale
    asked = len(scorer.answers)
    grader.grade([task("a3", slow)])
    assert len(scorer.answers) == asked + 1  # the examples were scored once


def test_whoever_stands_in_for_another_grader_does_not_hand_back() -> None:
    [outcome] = FreeTextGrader(Reading()).grade([task("a", item(3 * SLICE), queue="llm")])
    assert isinstance(outcome, Graded)
    assert outcome.provenance.model == f"m+{3 * SLICE}"


@pytest.mark.parametrize(("examples", "words"), [(9, "well"), (12, "astray")])
def test_too_few_examples_change_nothing(examples: int, words: str) -> None:
    [outcome] = FreeTextGrader(Reading()).grade([task("a", item(examples, words=words))])
    assert isinstance(outcome, Graded)
    assert (outcome.score, outcome.provenance.model) == (4, "m+0")


def test_examples_come_with_the_item() -> None:
    spec = FreeTextSpec(references=[REFERENCE], examples=[GradedExample(answer="it is lighter", score=3)])
    found = compile_item(Item(item="q", points=4, free_text=spec))
    assert isinstance(found, FreeTextItem)
    assert found.examples == (GradedAnswer("it is lighter", 0.75),)
    spec.examples[0].score = 5
    assert isinstance(compile_item(Item(item="q", points=4, free_text=spec)), BrokenItem)
    spec.examples[0].score = 1
    spec.examples.extend([spec.examples[0]] * 500)
    assert isinstance(compile_item(Item(item="q", points=4, free_text=spec)), BrokenItem)


def test_the_real_scorer_says_how_many_examples_it_learned_from() -> None:
    scorer = SemanticScorer(english=None, multilingual=None)
    rows = [("Water expands when it freezes", 0.5), ("Ice is less dense than liquid water", 0.4)] * 6
    examples = [GradedAnswer(answer, fraction) for answer, fraction in rows]
    taught = FreeTextItem(points=4, question="Why does ice float?", references=[REFERENCE], examples=examples)
    asked = Task(LeaseToken("a"), "free-text", taught, "Because ice is less dense than water is.")
    [outcome] = FreeTextGrader(scorer).grade([asked])
    assert isinstance(outcome, Graded)
    assert outcome.provenance.model.endswith("+calibrated-12")


def test_few_noisy_examples_do_little_harm() -> None:
    chance = random.Random(3)
    for _ in range(50):
        fractions = [chance.uniform(0.2, 1) for _ in range(10)]
        noisy = [min(1.0, max(0.0, one + chance.gauss(0, 0.25))) for one in fractions]
        noisy[0] = 1 - round(fractions[0])  # and one is the wrong way round
        found = Calibration.fit(fractions, noisy)
        assert 0.3 <= found.scale <= 2
        assert all(abs(found.apply(one) - one) < 0.3 for one in (0.25, 0.5, 0.75, 1.0))


def test_many_examples_are_followed_up_to_a_bound() -> None:
    fractions = [index / 99 for index in range(100)]
    found = Calibration.fit(fractions, [0.1 + 0.6 * one for one in fractions])
    assert found.apply(0.5) == pytest.approx(0.4, abs=0.02)
    assert found.apply(1.0) == pytest.approx(0.7, abs=0.05)
    turned = Calibration.fit(fractions, [1 - one for one in fractions])
    assert turned.apply(0.9) > turned.apply(0.1)  # never against the order of the scorer
