"""Which patterns can take exponential time."""

import random
import time

import pytest
import regex

from cinnabar_gateway.item_rules.backtracking import Budget, TooComplex, is_exponential

EXPONENTIAL = (
    *("(a+)+", "(a+)+$", "(a*)*", "(a|a)*", "(a|aa)+", "(a|a?)+", r"([a-zA-Z]+)*", r"(\w+\s?)*", r"(x+x+)+y"),
    *(
        "(a?){30}a{30}",
        "(a{1,3})*",
        r"(\s*\w+\s*)*",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        "(a+){20}",
        "(?=(a+)+b)c",
    ),
    *(r"(a)(a|\1)+b", "(a+|ba)+$", "(.*a){12}", "([^,]*,?)*", "(a|A)*", r"([\w.]+)*@", r"(\d|[0-9])*"),
    *("((a|b)*c?)*", r"(.|\s)*x", "(x(a?|b?))*", r"(?s:(.|\n)*)", "(é|É)*", "(a*?)*?b", "([a|b]|b)*"),
)
HARMLESS = (
    *("", "(a|b)*", r"\d{3}-\d{4}", r"(\d{1,3}\.){3}\d{1,3}", "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}", "(xa*)+"),
    *(r"\w+(\s+\w+)*", r"[^@]+@[^@]+\.[a-z]+", ".*(tcp|udp).*", r"(\d{3})*", "(foo|bar|baz)+", "(?:a{4}b)*"),
    *("a{1000}", ".*.*x", r"-?\d+(\.\d+)?([eE][+-]?\d+)?", r"(\(\d+\))*", r"(?:[+-]?\d+\s*,\s*)*\d+"),
    *(
        "((ab|cd){4})*",
        r"(?:\w[^\w])*",
        "(?i)three[- ]way hand-?shake",
        r"[\w\d]+|x",
        r"\|+(\||a)",
        "(?!a)b*",
    ),
)


@pytest.mark.parametrize("pattern", EXPONENTIAL)
def test_what_can_be_matched_in_two_ways_again_and_again_is_exponential(pattern: str) -> None:
    assert is_exponential(pattern, case_sensitive=False, budget=Budget())


@pytest.mark.parametrize("pattern", HARMLESS)
def test_what_a_teacher_writes_is_not(pattern: str) -> None:
    assert not is_exponential(pattern, case_sensitive=False, budget=Budget())


def test_case_decides_where_it_makes_a_difference() -> None:
    assert not is_exponential("(a|A)*", case_sensitive=True, budget=Budget())


@pytest.mark.parametrize(
    "pattern",
    [
        "(" + "?".join(map(chr, range(0x4E00, 0x4E00 + 490))) + ")*",
        "(" + "|".join(f"w{number:03}" for number in range(190)) + ")+",
        "(" * 12 + "a" + "{3})" * 12,
        "(?:" * 60 + "){3}" * 60,
        "((((.+)+)+)+)\\1\\2\\3\\4" * 40,
    ],
)
def test_judging_is_bounded(pattern: str) -> None:
    began = time.process_time()
    budget = Budget()
    try:
        assert is_exponential(pattern, case_sensitive=False, budget=budget)
    except TooComplex:
        assert budget.steps < 0
    assert time.process_time() - began < 2  # some 0.2 s on a machine that has nothing else to do


def test_what_is_judged_harmless_never_keeps_a_matcher_busy() -> None:
    chance = random.Random(5)
    pieces = ("a", "b", "[ab]", "(", ")", "|", "*", "+", "?", "{2}", "a", "(a|b)", "(?:ab)", "b?")
    judged = 0
    while judged < 150:
        pattern = "".join(chance.choices(pieces, k=chance.randrange(2, 9)))
        try:
            compiled = regex.compile(pattern)
            if is_exponential(pattern, case_sensitive=True, budget=Budget()):
                continue
        except regex.error:
            continue
        judged += 1
        for pump in ("a", "b", "ab", "aab", "ba"):
            compiled.fullmatch(pump * 12 + "!", timeout=20)  # TimeoutError: we were wrong
