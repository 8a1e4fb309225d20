"""Results that scripts wrote: read as a whole, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_grader.code.item import ScriptForm
from cinnabar_grader.code.scripts import MAX_BYTES, MAX_RESULTS, BrokenResults, read
from cinnabar_grader.graders import TestVerdict

G, P = ScriptForm.GRADESCOPE, ScriptForm.PRAIRIELEARN


def text(found: Any) -> bytes:
    return json.dumps(found).encode()


def test_gradescope_tests_are_scaled_to_the_points_of_the_item() -> None:
    found = {
        "tests": [
            {"name": "first", "score": 20, "max_score": 20, "output": "well done"},
            {"name": "second", "score": 5, "max_score": 20, "visibility": "hidden"},
            {"score": 0, "max_score": 40, "output": "no"},
            {"name": "style", "score": 0, "max_score": 0, "status": "failed"},
        ]
    }
    results = read(text(found), G, 8)
    assert (results.score, results.parts) == (2.5, True)
    assert [(t.test, t.score, t.max_score, t.hidden) for t in results.tests] == [
        ("test-1", 2, 2, False),
        ("test-2", 0.5, 2, True),
        ("test-3", 0, 4, False),
        ("test-4", 0, 0, False),
    ]
    assert [t.verdict for t in results.tests] == [
        TestVerdict.ACCEPTED,
        TestVerdict.ACCEPTED,
        TestVerdict.WRONG_ANSWER,
        TestVerdict.WRONG_ANSWER,
    ]
    assert (results.tests[0].title, results.tests[0].message) == ("first", "well done")


def test_a_gradescope_score_of_the_whole_wins() -> None:
    found = {"score": 10, "output": "fine", "tests": [{"score": 1, "max_score": 20}]}
    results = read(text(found), G, 8)
    assert (results.score, results.parts, results.message) == (4, False, "fine")
    assert read(text({"score": 3}), G, 8).score == 3  # without maxima it is of the item's points
    assert read(text({"tests": [{"score": 1}, {"score": 2}]}), G, 8).score == 3
    assert read(text({"score": 0.1, "visibility": "hidden", "tests": [{}]}), G, 1).tests[0].hidden


def test_prairielearn() -> None:
    tests = [
        {"name": "a", "points": 1, "max_points": 1, "message": "good", "output": "x"},
        {"name": "b", "points": 0, "max_points": 3},
    ]
    results = read(text({"gradable": True, "score": 0.25, "message": "hm", "tests": tests}), P, 10)
    assert (results.score, results.parts, results.message) == (2.5, True, "hm")
    assert (results.tests[0].message, results.tests[0].output) == ("good", "x")
    whole = read(text({"score": 0.5, "tests": tests}), P, 10)
    assert (whole.score, whole.parts) == (5, False)
    assert read(text({"score": 1}), P, 10).score == 10


def test_what_prairielearn_cannot_grade_earns_nothing() -> None:
    found = {"gradable": False, "format_errors": ["line 1 is bad"], "message": "see below"}
    results = read(text(found), P, 10)
    assert (results.score, results.parts) == (0, False)
    assert results.message == "line 1 is bad\nsee below"
    assert results.tests[0].verdict is TestVerdict.COMPILE_ERROR


@pytest.mark.parametrize(
    ("found", "rule"),
    [
        (None, "no file"),
        (b"x" * (MAX_BYTES + 1), "bytes"),
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b'{"score": NaN}', "JSON"),
        (b'{"score": Infinity}', "JSON"),
        (b'{"score": 1e999}', "finite"),
        (b"[" * 100_000, "JSON"),
        (b"[]", "object"),
        (b"{}", "neither"),
        (b'{"score": -1}', "negative"),
        (b'{"score": true}', "number"),
        (b'{"score": "5"}', "number"),
        (b'{"score": 11}', "more than can be had"),
        (b'{"tests": {}}', "neither"),
        (b'{"tests": {"a": 1}}', "list"),
        (b'{"tests": [1]}', "object"),
        (b'{"tests": [{"max_score": 5}]}', "no score"),
        (b'{"tests": [{"score": 6, "max_score": 5}]}', "more points"),
        (b'{"tests": [{"score": 6}, {"score": 6}]}', "more than can be had"),
        (json.dumps({"tests": [{"score": 0}] * (MAX_RESULTS + 1)}).encode(), "tests"),
    ],
)
def test_broken_results_are_refused(found: bytes | None, rule: str) -> None:
    with pytest.raises(BrokenResults, match=rule):
        read(found, G, 10)


@pytest.mark.parametrize("found", [{"score": 1.5}, {"gradable": "no"}, {"tests": [{"points": -1}]}])
def test_broken_results_of_prairielearn_are_refused(found: Any) -> None:
    with pytest.raises(BrokenResults):
        read(text(found), P, 10)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["score", "tests", "gradable", "output", "message"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(
                st.dictionaries(
                    st.sampled_from(["score", "max_score", "points", "max_points", "name", "output"]), inner
                ),
                max_size=3,
            ),
            max_leaves=6,
        ),
    ),
    st.sampled_from([G, P]),
)
def test_whatever_a_script_writes_the_score_is_in_range(found: dict[str, Any], form: ScriptForm) -> None:
    try:
        results = read(text(found), form, 7)
    except BrokenResults:
        return
    assert 0 <= results.score <= 7
    assert all(0 <= test.score <= test.max_score for test in results.tests)
    if results.parts:
        assert abs(sum(test.max_score for test in results.tests) - 7) < 1e-6
        assert abs(sum(test.score for test in results.tests) - results.score) < 1e-6


def test_texts_that_are_no_unicode_become_it() -> None:
    results = read(b'{"tests": [{"score": 1, "name": "\\ud800", "output": "a\\udfffb"}]}', G, 1)
    assert results.tests[0].message.encode() == b"a?b"
    assert results.tests[0].title == "?"
