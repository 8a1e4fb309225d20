"""Choice items."""

import pytest

from cinnabar_grader.graders import Ungradable
from cinnabar_grader.phrases import Language
from cinnabar_grader.rules.choice import ChoiceRule


def rule(*, partial: bool, correct: str = "ac", options: str = "abcde", points: float = 6) -> ChoiceRule:
    return ChoiceRule(points=points, options=options, correct=correct, partial_credit=partial)


@pytest.mark.parametrize(
    ("selected", "exact", "partial"),
    [
        ("ac", 6, 6),
        ("a", 0, 3),
        ("c", 0, 3),
        ("acb", 0, 4),  # 2/2 - 1/3
        ("ab", 0, 1),  # 1/2 - 1/3
        ("abd", 0, 0),  # 1/2 - 2/3, not below 0
        ("b", 0, 0),
        ("abcde", 0, 0),
        ("", 0, 0),
    ],
)
def test_scores(selected: str, exact: float, partial: float) -> None:
    answer = frozenset(selected)
    assert rule(partial=False).verdict(answer).score == exact
    assert rule(partial=True).verdict(answer).score == partial


def test_thirds_are_rounded() -> None:
    assert rule(partial=True, correct="abc", points=1).verdict(frozenset("ab")).score == 0.67


def test_all_options_may_be_correct() -> None:
    assert rule(partial=True, correct="abcde", points=5).verdict(frozenset("abcd")).score == 4


def test_feedback_counts_but_does_not_tell_the_solution() -> None:
    verdict = rule(partial=True).verdict(frozenset("acb"))
    assert verdict.feedback == "Partly correct: 2 of 2 correct options, 1 incorrect."
    assert rule(partial=False).verdict(frozenset("b")).feedback.startswith("Not correct")
    assert rule(partial=False).verdict(frozenset()).feedback == "No answer was given."


def test_feedback_is_in_the_language_of_the_item() -> None:
    chinese = ChoiceRule(points=1, options="ab", correct="a", language=Language.CHINESE)
    assert chinese.verdict(frozenset("a")).feedback == "正确。"


def test_an_option_that_does_not_exist_cannot_be_graded() -> None:
    with pytest.raises(Ungradable, match="does not exist"):
        rule(partial=True).verdict(frozenset("az"))


@pytest.mark.parametrize(("correct", "words"), [("", "no option"), ("az", "not one of")])
def test_broken_specifications(correct: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(partial=False, correct=correct)
