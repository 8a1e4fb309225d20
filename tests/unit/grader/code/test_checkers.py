"""Outputs against expected ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinnabar_grader.code.checkers import BrokenChecker, Exact, Numbers, Tokens, judgement


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        (b"a b\n", b"a b\n", True),
        (b"a b", b"a b\n", True),
        (b"a b\r\n", b"a b\n", True),
        (b"a  b\n", b"a b\n", False),
        (b"a b \n", b"a b\n", False),
        (b"a b\n\n", b"a b\n", False),
        (b"", b"", True),
        (b"\xff", b"\xfe", False),
    ],
)
def test_exact(output: bytes, expected: bytes, same: bool) -> None:
    assert Exact().agree(output, expected) is same


@pytest.mark.parametrize(
    ("output", "expected", "fold", "same"),
    [
        (b" a\t b\n\n", b"a b", False, True),
        (b"ab", b"a b", False, False),
        (b"Yes", b"yes", False, False),
        (b"YES", b"yes", True, True),
        ("ÄRGER".encode(), "ärger".encode(), True, True),
        (b"\xff", b"\xfe", True, False),
        (b"", b" \n", False, True),
    ],
)
def test_tokens(output: bytes, expected: bytes, fold: bool, same: bool) -> None:
    assert Tokens(ignore_case=fold).agree(output, expected) is same


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        (b"3.1416", b"3.14159", True),
        (b"3.2", b"3.14159", False),
        (b"x = 3.1416", b"x = 3.14159", True),
        (b"y = 3.1416", b"x = 3.14159", False),
        (b"1e3", b"1000", True),
        (b"1000001", b"1000000", True),
        (b"-0.0", b"0", True),
        (b"nan", b"NaN", True),
        (b"nan", b"1", False),
        (b"inf", b"inf", True),
        (b"inf", b"1e999", True),
        (b"-inf", b"inf", False),
        (b"1 2", b"1", False),
        (b"1_000", b"1000", False),
        (b"0x10", b"16", False),
        (b"9" * 500, b"9" * 499 + b"8", False),
        (b"1e9999999999", b"1", False),
    ],
)
def test_numbers(output: bytes, expected: bytes, same: bool) -> None:
    assert Numbers(absolute=0.001, relative=1e-5).agree(output, expected) is same


@given(st.binary(max_size=80))
def test_every_output_agrees_with_itself(output: bytes) -> None:
    for checker in (Exact(), Tokens(), Tokens(ignore_case=True), Numbers()):
        assert checker.agree(output, output)


@pytest.mark.parametrize(
    ("absolute", "relative"), [(-1, 0), (float("nan"), 0), (float("inf"), 0), (0, 1), (0, -0.1)]
)
def test_tolerances_that_are_none(absolute: float, relative: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        Numbers(absolute, relative)


def test_judgement() -> None:
    assert judgement(b"0.5\nAlmost.\nTry again.\n") == (0.5, "Almost.\nTry again.")
    assert judgement(b" 1 \r\n") == (1.0, "")
    assert judgement(b"1") == (1.0, "")
    for said in (b"", b"yes", b"nan", b"inf", b"-0.1", b"1.1", b"\n1", b"\xff"):
        with pytest.raises(BrokenChecker):
            judgement(said)
