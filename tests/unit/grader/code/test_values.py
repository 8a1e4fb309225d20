"""Values come out of a box as they went in, and nothing else does."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinnabar_grader.code.harness.call import encode
from cinnabar_grader.code.values import (
    MAX_DEPTH,
    MAX_PARTS,
    NoValue,
    Other,
    Undefined,
    decode,
    equal,
    from_json,
    literal,
    shown,
)

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=5,
)
LITERALS: st.SearchStrategy[Any] = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=12,
)


def sent(value: Any) -> bytes:
    return json.dumps(encode(value)).encode()


@settings(max_examples=50)
@given(LITERALS)
def test_a_value_equals_its_own_literal(value: Any) -> None:
    assert equal(decode(sent(value)), literal(repr(value)))


@settings(max_examples=50)
@given(LITERALS, LITERALS)
def test_values_are_equal_as_python_finds_but_for_truth_values(one: Any, other: Any) -> None:
    ours = equal(decode(sent(one)), literal(repr(other)))
    assert ours <= (one == other)
    if one == other and "True" not in repr((one, other)) and "False" not in repr((one, other)):
        assert ours


@given(
    st.binary(max_size=200)
    | st.text(alphabet='[]"{},:ifltsdbcou0123456789-.e x', max_size=60).map(str.encode)
)
def test_whatever_comes_out_of_a_box_is_a_value_or_none(content: bytes) -> None:
    try:
        value = decode(content)
    except NoValue:
        return
    shown(value).encode("utf-8", "replace")
    equal(value, value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1",
        b"1.5",
        b"NaN",
        b"{}",
        b"[]",
        b"[1]",
        b'["i", 5]',
        b'["i", "zz"]',
        b'["i"]',
        b'["f", "x"]',
        b'["b", "0"]',
        b'["d", ["u"]]',
        b'["d", [["l"], null]]',
        b'["s", ["d"]]',
        b'["q", null]',
        b'["l"' + b', ["l"' * MAX_DEPTH + b"]" * (MAX_DEPTH + 1),
        b"[" * 100_000,
        b'["l"' + b", null" * MAX_PARTS + b"]",
        '["l", \ud800]'.encode("utf-8", "surrogatepass"),
    ],
)
def test_what_is_no_value_is_refused(content: bytes) -> None:
    with pytest.raises(NoValue):
        decode(content)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f(1)",
        "x",
        "__import__('os')",
        "[1, 2",
        "1 + 1",
        "[x for x in (1,)]",
        "{**{}}",
        "{[]: 1}",
        "-True",
        "(" * 300 + ")" * 300,
        "-" * 5000 + "1",
        "...",
        "f'{1}'",
    ],
)
def test_what_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(NoValue):
        literal(text)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1e999]", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(NoValue):
        from_json(text)


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "same"),
    [
        ("1", "1.0", 0, True),
        ("1", "True", 0, False),
        ("True", "1", 0, False),
        ("[1, 2]", "(1, 2)", 0, False),
        ("(1,)", "(1,)", 0, True),
        ("None", "False", 0, False),
        ("'1'", "1", 0, False),
        ("b'a'", "'a'", 0, False),
        ("0.30000000000000004", "0.3", 0, False),
        ("0.30000000000000004", "0.3", 1e-9, True),
        ("[[0.301], {'a': 2.999}]", "[[0.3], {'a': 3}]", 0.01, True),
        ("[[0.4], {'a': 2.999}]", "[[0.3], {'a': 3}]", 0.01, False),
        ("1e308", "-1e308", 1.0, False),
        ("1" + "0" * 400, "1.5", 1.0, False),
        ("{1, 2}", "{2, 1}", 0, True),
        ("{1, 2}", "{1, 2, 3}", 0, False),
        ("{1: 'a'}", "{1.0: 'a'}", 0, True),
        ("{True: 'a'}", "{1: 'a'}", 0, False),
        ("{(1, '2'): 3}", "{(1, '2'): 3}", 0, True),
        ("{('a', 'b')}", "{('ab', '')}", 0, False),
        ("3+4j", "3.001+4j", 0.01, True),
    ],
)
def test_equality(found: str, expected: str, tolerance: float, same: bool) -> None:
    assert equal(literal(found), literal(expected), tolerance) is same


def test_subclasses_travel_as_what_they_are_and_cannot_lie_about_equality() -> None:
    class Liar(list[int]):
        def __eq__(self, other: object) -> bool:
            return True

        def __iter__(self) -> Any:
            return iter((1, 2, 3))

    class Number(int):
        def __format__(self, spec: str) -> str:
            return "2a"

    assert equal(decode(sent(Liar([7]))), literal("[7]"))
    assert equal(decode(sent(Number(7))), literal("7"))


def test_what_has_no_literal_equals_nothing() -> None:
    other = decode(sent(object))
    assert isinstance(other, Other)
    assert not equal(other, other)
    assert not equal(Undefined(), None)
    assert shown(Undefined()) == "undefined"


def test_long_values_are_shown_in_part() -> None:
    assert shown(literal("[1, 'a', (2,), {3}, {4: None}]")) == "[1, 'a', (2,), {3}, {4: None}]"
    assert len(shown(literal(repr(list(range(1000)))))) < 100
    assert len(shown(literal(repr("x" * 10_000)))) <= 301
    assert shown(decode(json.dumps(["i", "f" * 3000]).encode())).startswith("0xfff")
