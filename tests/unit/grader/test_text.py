"""Short text items."""

import time

import pytest

from cinnabar_grader.graders import FailureCode, Ungradable
from cinnabar_grader.rules.text import TextRule, normal


def accepts(*accepted: str, case_sensitive: bool = False) -> TextRule:
    return TextRule(points=2, accepted=accepted, case_sensitive=case_sensitive)


def matches(pattern: str, *, case_sensitive: bool = False) -> TextRule:
    return TextRule(points=2, pattern=pattern, case_sensitive=case_sensitive)


@pytest.mark.parametrize(
    ("rule", "answer", "right"),
    [
        (accepts("Paris"), "Paris", True),
        (accepts("Paris"), "  paris\n", True),
        (accepts("Paris"), "Parys", False),
        (accepts("Paris"), "Paris!", False),
        (accepts("Paris", "Lutetia"), "LUTETIA", True),
        (accepts("New York"), "new \t\u3000 york", True),
        (accepts("Straße"), "STRASSE", True),
        (accepts("ﬁnal"), "final", True),
        (accepts("Ａ１"), "a1", True),
        (accepts("café"), "cafe\u0301", True),
        (accepts("İ"), "i\u0307", True),
        (accepts("北京"), " 北京 ", True),
        (accepts("pH", case_sensitive=True), "pH", True),
        (accepts("pH", case_sensitive=True), "ph", False),
        (matches(r"colou?r"), "Color", True),
        (matches(r"colou?r"), "colors", False),
        (matches(r"colou?r"), "the color", False),
        (matches(r"colou?r", case_sensitive=True), "Color", False),
        (matches(r"\d+ ?kg"), "  12   kg ", True),
        (matches(r"（甲|乙）"), "（甲", True),
        (matches(r"a\s\sb"), "a  b", True),
        (matches(r"(?:[^x]*)"), "", True),
    ],
)
def test_verdicts(rule: TextRule, answer: str, right: bool) -> None:
    assert rule.verdict(answer).score == (2 if right else 0)


@pytest.mark.parametrize("answer", ["", " ", "\n\t"])
def test_nothing_is_no_answer(answer: str) -> None:
    assert accepts("x").verdict(answer).feedback == "No answer was given."


@pytest.mark.parametrize(
    ("pattern", "answer"), [("(a|aa)+$", "a" * 60 + "!"), ("((b{1,1000}){1,1000}){1,1000}", "b" * 5000 + "!")]
)
def test_a_pattern_that_cannot_decide_is_nobodys_verdict(pattern: str, answer: str) -> None:
    started = time.monotonic()
    with pytest.raises(Ungradable, match="50 ms") as caught:
        matches(pattern).verdict(answer)
    assert caught.value.code is FailureCode.UNKNOWN
    assert time.monotonic() - started < 5
    assert answer not in caught.value.message


@pytest.mark.parametrize("pattern", ["(", "[a", "(?P<n>a)(?P=m)", "*", "a{2,1}", "\\"])
def test_broken_patterns(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        matches(pattern)


def test_exactly_one_kind_of_rule() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        TextRule(points=1)
    with pytest.raises(ValueError, match="exactly one"):
        TextRule(points=1, accepted=["a"], pattern="a")


def test_only_patterns_are_slow() -> None:
    assert matches("a").slow
    assert not accepts("a").slow


def test_normal_form_is_stable() -> None:
    text = " Ａ\u00a0b\u2003c "
    assert normal(text) == "A b c" == normal(normal(text))
