"""Texts of programs, as students read them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_grader.code.texts import MAX_TEXTS, cut, fitted, last, without_folders
from cinnabar_grader.graders import TestResult as Result
from cinnabar_grader.graders import TestVerdict as Verdict


@settings(max_examples=60)
@given(st.binary(max_size=80) | st.text(max_size=40), st.integers(4, 60))
def test_a_text_is_cut_at_a_character(text: bytes | str, limit: int) -> None:
    found = cut(text, limit)
    assert len(found.encode()) <= limit
    whole = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    shown = whole.encode("utf-8", "replace").decode()
    assert found == shown or (found.endswith("…") and shown.startswith(found[:-1]))


def test_what_is_no_text_is_replaced() -> None:
    assert cut(b"a\xff\xfeb") == "a\ufffd\ufffdb"
    assert cut("a\ud800b") == "a?b"
    assert cut("界" * 2000) == "界" * 1364 + "…"


def test_the_end_of_what_was_said() -> None:
    assert last(b"one\ntwo\n", 100) == b"one\ntwo\n"
    assert last(b"one\ntwo\nthree\n", 8) == b"three\n"
    assert last(b"x" * 100, 8) == b"x" * 8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('  File "/box/main.py", line 7, in f', '  File "main.py", line 5, in f'),
        ('  File "main.py", line 2', '  File "main.py", line 0'),
        ('  File "/usr/lib/python3.11/json/decoder.py", line 7', '  File "decoder.py", line 7'),
        ('  File "<string>", line 21, in <module>\n  File "main.py", line 3\n', '  File "main.py", line 1\n'),
        ("/tmp/a-b/x.c:3:1: error: 1/2 and a/b", "x.c:3:1: error: 1/2 and a/b"),
        ("see http://example.org/a/b", "see http://example.org/a/b"),
        (
            "E: x\n    at f (main.js:1:2)\n    at run (node:vm:1:1)\n\nNode.js v20.1.0\n",
            "E: x\n    at f (main.js:1:2)\n\n",
        ),
    ],
)
def test_folders_of_the_machine_are_left_away(text: str, shown: str) -> None:
    assert without_folders(text, preamble_lines=2) == shown


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 4096)), max_size=200))
def test_the_results_of_a_grade_fit(sizes: list[tuple[int, int]]) -> None:
    results = [
        Result(f"t-{number}", Verdict.WRONG_ANSWER, 0, 1, message="m" * said, output="o" * wrote)
        for number, (said, wrote) in enumerate(sizes)
    ]
    kept = fitted(results)
    assert [result.test for result in kept] == [result.test for result in results]
    assert sum(len(result.message) + len(result.output) for result in kept) <= MAX_TEXTS
    for before, after in zip(results, kept, strict=True):
        assert after == before or (after.output == "" and len(after.message) <= 200)
