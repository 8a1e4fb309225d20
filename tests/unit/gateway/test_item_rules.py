"""Every rule of every kind of item, and that no item crashes the rules."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.item_pb2 import (
    Checker,
    CodeSpec,
    CodeTest,
    FreeTextSpec,
    GradedExample,
    Item,
    SourceFile,
    StdioTest,
    TextSpec,
)
from cinnabar_gateway.assignment_rules import assignment_violations
from cinnabar_grader.code_convert import code_item as compiled
from tests.support.any_message import any_message
from tests.support.gateway_code import code_item, code_items, custom_item, llm_item, script_item
from tests.support.gateway_world import items

NAN = float("nan")
Language = CodeSpec.Language
Change = Callable[[Item], object]


@dataclass(frozen=True, slots=True)
class Row:
    """A good item spoilt by ``change``, the fields that are named, and words of the rules."""

    make: Callable[[], Item]
    change: Change
    fields: tuple[str, ...]
    words: str


def spoilt(make: Callable[[], Item], change: Change, *fields: str, words: str = "") -> Row:
    return Row(make, change, fields, words)


def all_of(*changes: Change) -> Change:
    return lambda item: [change(item) for change in changes]


def text_item(pattern: str) -> Callable[[], Item]:
    return lambda: Item(item="t", points=1, text=TextSpec(pattern=pattern))


def java() -> Item:
    item = code_item()
    item.code.language = Language.JAVA
    item.code.ClearField("preamble")
    return item


def javascript() -> Item:
    item = code_item()
    item.code.language = Language.JAVASCRIPT
    item.code.ClearField("preamble")
    for test in item.code.tests:
        if test.HasField("call"):
            test.call.expected = "[1, null]"
    return item


def stdio(**changes: object) -> Change:
    """Replaces the test "stdio"."""

    def change(item: Item) -> None:
        item.code.tests[2].stdio.CopyFrom(StdioTest(**changes))  # pyright: ignore[reportArgumentType]

    return change


def call(index: int = 0, **changes: object) -> Change:
    """Changes a test by call."""

    def change(item: Item) -> None:
        for name, value in changes.items():
            setattr(item.code.tests[index].call, name, value)

    return change


def checker(kind: Checker | None = None) -> Change:
    return stdio(checker=kind or Checker())


def limit(**changes: object) -> Change:
    def change(item: Item) -> None:
        for name, value in changes.items():
            if isinstance(value, Duration):
                getattr(item.code.limits, name).CopyFrom(value)
            else:
                setattr(item.code.limits, name, value)

    return change


C, T, S = "code", "code.tests", "code.script"
L, E = "free_text.llm", "free_text.examples"


def code_rows() -> Iterator[Row]:
    yield spoilt(code_item, lambda it: it.code.ClearField("language"), f"{C}.language")
    yield spoilt(code_item, lambda it: setattr(it.code, "language", 9), f"{C}.language", words="list")
    yield spoilt(code_item, lambda it: it.code.ClearField("tests"), C, words="either tests or script")
    yield spoilt(
        code_item,
        lambda it: it.code.script.CopyFrom(script_item().code.script),
        C,
        words="either tests or script",
    )
    for path in ("/etc/passwd", "../x", "a/./b", "", "ü", "a\\b", "x" * 201, "a/"):
        yield spoilt(
            code_item, lambda it, path=path: setattr(it.code.files[0], "path", path), f"{C}.files[0].path"
        )
    large = SourceFile(path="large", content="x" * (1 << 20))
    yield spoilt(code_item, lambda it: it.code.files.append(large), f"{C}.files", words="1048576 bytes")
    many = [SourceFile(path=str(number)) for number in range(50)]
    yield spoilt(code_item, lambda it: it.code.files.extend(many), f"{C}.files", words="50")
    for name, value in (
        ("cpu_time", Duration(nanos=9_000_000)),
        ("cpu_time", Duration(seconds=60, nanos=1)),
        ("cpu_time", Duration(seconds=-1)),
        ("wall_time", Duration(seconds=121)),
        ("wall_time", Duration()),
        ("memory_bytes", 1 << 20),
        ("memory_bytes", -1),
        ("memory_bytes", (2 << 30) + 1),
        ("processes", 257),
        ("processes", -1),
        ("output_bytes", (16 << 20) + 1),
        ("file_bytes", (64 << 20) + 1),
    ):
        yield spoilt(code_item, limit(**{name: value}), f"{C}.limits.{name}")
    yield spoilt(
        java, lambda it: setattr(it.code, "preamble", "import re"), f"{C}.preamble", *calls(), words="Python"
    )
    yield spoilt(
        code_item, lambda it: setattr(it.code, "preamble", "#" * 65_537), f"{C}.preamble", words="65536 bytes"
    )
    tests = [CodeTest(test=f"t{number}", stdio=StdioTest()) for number in range(197)]
    yield spoilt(code_item, lambda it: it.code.tests.extend(tests), T, words="at most 200")


def calls() -> tuple[str, ...]:
    return f"{T}[0].call", f"{T}[1].call"


def rows_of_tests() -> Iterator[Row]:
    yield spoilt(java, lambda it: None, *calls(), words="Python and JavaScript")
    yield spoilt(
        code_item, lambda it: setattr(it.code.tests[1], "test", "call"), f"{T}[1].test", words="unique"
    )
    yield spoilt(code_item, lambda it: setattr(it.code.tests[1], "test", "A b"), f"{T}[1].test")
    yield spoilt(code_item, lambda it: it.code.tests[1].ClearField("test"), f"{T}[1].test", words="required")
    yield spoilt(
        code_item, lambda it: setattr(it.code.tests[1], "points", 1.5), T, words="4 points together, not 4.5"
    )
    for points in (-1.0, NAN, float("inf"), 1e7):
        yield spoilt(
            code_item,
            lambda it, p=points: setattr(it.code.tests[1], "points", p),
            f"{T}[1].points",
            words="0 or more",
        )
    yield spoilt(
        code_item, lambda it: setattr(it.code.tests[0], "title", "x" * 201), f"{T}[0].title", words="200"
    )
    yield spoilt(code_item, lambda it: it.code.tests[0].ClearField("call"), f"{T}[0]", words="stdio, call")
    for expected in ("search", "[1, 2", "1 +", "\0", "x()", "-" * 5000, "'a", "__import__('os')"):
        yield spoilt(code_item, call(expected=expected), f"{T}[0].call.expected", words="Python literal")
    for expected in ("(1,)", "NaN", "[1", "True", "'a'", "[" * 5000):
        yield spoilt(javascript, call(expected=expected), f"{T}[0].call.expected", words="must be JSON")
    yield spoilt(code_item, call(expected=""), f"{T}[0].call.expected", words="required")
    yield spoilt(
        code_item, call(expected="1" * (1 << 20) + "1"), f"{T}[0].call.expected", words="1048576 bytes"
    )
    yield spoilt(
        code_item, call(call="search(1"), f"{T}[0].call.call", words="expression, but it does not parse"
    )
    yield spoilt(code_item, call(call="x = 1"), f"{T}[0].call.call", words="expression")
    yield spoilt(javascript, call(call=" "), f"{T}[0].call.call", words="blank")
    yield spoilt(code_item, call(call="x" * 65_537), f"{T}[0].call.call", words="65536 bytes")
    for tolerance in (-0.1, NAN, float("inf")):
        yield spoilt(code_item, call(tolerance=tolerance), f"{T}[0].call.tolerance", words="0 or more")
    long = "x" * (1 << 20) + "x"
    yield spoilt(code_item, stdio(input=long), f"{T}[2].stdio.input", words="1048576 bytes")
    yield spoilt(
        code_item, stdio(expected_output=long), f"{T}[2].stdio.expected_output", words="1048576 bytes"
    )
    yield spoilt(code_item, stdio(arguments=["a"] * 101), f"{T}[2].stdio.arguments", words="100")
    yield spoilt(code_item, stdio(arguments=["a", "\0"]), f"{T}[2].stdio.arguments[1]", words="U+0000")
    at = f"{T}[2].stdio.checker"
    yield spoilt(code_item, checker(), at, words="one of exact, tokens, numbers, program")
    yield spoilt(
        code_item, checker(Checker(program=Checker.Program())), f"{at}.program.source", words="required"
    )
    broken = Checker(program=Checker.Program(source="def f(:"))
    yield spoilt(code_item, checker(broken), f"{at}.program.source", words="does not parse")
    large = Checker(program=Checker.Program(source="#" * 262_145))
    yield spoilt(code_item, checker(large), f"{at}.program.source", words="262144 bytes")
    for absolute, relative, field in (
        (-1.0, 0.0, "absolute"),
        (NAN, 0, "absolute"),
        (0, 1, "relative"),
        (0, NAN, "relative"),
    ):
        numbers = Checker(numbers=Checker.Numbers(absolute_tolerance=absolute, relative_tolerance=relative))
        yield spoilt(code_item, checker(numbers), f"{at}.numbers.{field}_tolerance")
    yield spoilt(
        code_item,
        all_of(call(0, tolerance=-1, expected="x"), call(1, call="("), limit(processes=999), checker()),
        f"{C}.limits.processes",
        f"{T}[0].call.tolerance",
        f"{T}[0].call.expected",
        f"{T}[1].call.call",
        at,
    )


def script_rows() -> Iterator[Row]:
    yield spoilt(script_item, lambda it: it.code.script.ClearField("files"), f"{S}.files", words="required")
    yield spoilt(
        script_item, lambda it: it.code.script.ClearField("command"), f"{S}.command", words="required"
    )
    yield spoilt(script_item, lambda it: setattr(it.code.script, "form", 7), f"{S}.form", words="GRADESCOPE")
    yield spoilt(
        script_item, lambda it: it.code.script.command.insert(0, " "), f"{S}.command[0]", words="program"
    )
    for path, rule in (("submission/x", "way"), ("results", "way"), ("../x", "relative path")):
        yield spoilt(
            script_item,
            lambda it, path=path: setattr(it.code.script.files[0], "path", path),
            f"{S}.files[0].path",
            words=rule,
        )


def free_text_rows() -> Iterator[Row]:
    yield spoilt(
        llm_item, lambda it: it.free_text.ClearField("references"), "free_text.references", words="required"
    )
    for field, values in (
        ("model", ["m" * 129]),
        ("instructions", ["纸" * 2731]),
        ("samples", [-1, 6]),
        ("review_below", [-0.1, 1.1, NAN]),
    ):
        for value in values:
            yield spoilt(
                llm_item, lambda it, f=field, v=value: setattr(it.free_text.llm, f, v), f"{L}.{field}"
            )
    for example, field in (
        (GradedExample(answer="", score=1), "answer"),
        (GradedExample(answer=" \n", score=1), "answer"),
        (GradedExample(answer="x" * 65_537, score=1), "answer"),
        (GradedExample(answer="x", score=3.1), "score"),
        (GradedExample(answer="x", score=-0.1), "score"),
        (GradedExample(answer="x", score=NAN), "score"),
    ):
        yield spoilt(llm_item, lambda it, e=example: it.free_text.examples.append(e), f"{E}[1].{field}")
    many = [GradedExample(answer="x")] * 500
    yield spoilt(llm_item, lambda it: it.free_text.examples.extend(many), E, words="500")


def custom_rows() -> Iterator[Row]:
    for kind in ("Verse", "v" * 41, "a_b", "a\n"):
        yield spoilt(custom_item, lambda it, k=kind: setattr(it.custom, "kind", k), "custom.kind", words="40")
    yield spoilt(custom_item, lambda it: it.custom.ClearField("kind"), "custom.kind", words="required")
    yield spoilt(
        custom_item,
        lambda it: it.custom.config.update({"x": "y" * (256 << 10)}),
        "custom.config",
        words="262144 bytes",
    )
    for value in (Value(number_value=NAN), Value()):
        yield spoilt(
            custom_item,
            lambda it, v=value: it.custom.config.fields["deep"].list_value.values.append(v),
            "custom.config",
            words="JSON",
        )
    half = FreeTextSpec.Criterion(criterion="form", description="it rhymes", points=0.5)
    yield spoilt(
        custom_item, lambda it: it.custom.criteria.append(half), "custom.criteria", words="1 points together"
    )


def pattern_rows() -> Iterator[Row]:
    yield spoilt(text_item("(a+)+$"), lambda it: None, "text.pattern", words="exponential time")
    yield spoilt(
        text_item("(" * 400 + ")" * 400), lambda it: None, "text.pattern", words="not a regular expression"
    )
    words = "(" + "|".join(f"w{number:03}" for number in range(190)) + ")+"
    yield spoilt(text_item(words), lambda it: None, "text.pattern", words="too complex")


ROWS = [*code_rows(), *rows_of_tests(), *script_rows(), *free_text_rows(), *custom_rows(), *pattern_rows()]


def violations_of(*given: Item) -> list[tuple[str, str]]:
    return [(one.field, one.rule) for one in assignment_violations(Assignment(items=given), at="a")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.fields[0]} {row.words}")
def test_each_broken_rule_is_told_with_its_field(row: Row) -> None:
    bad = row.make()
    row.change(bad)
    found = violations_of(items()[0], bad)
    assert tuple(field.removeprefix("a.items[1].") for field, _ in found) == row.fields
    assert any(row.words in rule for _, rule in found), found


def test_good_items_break_no_rule() -> None:
    assert violations_of(*items(), *code_items()) == []
    assert violations_of(javascript()) == []


@pytest.mark.parametrize(
    "expected", ["(1, 'a', b'x', {1: 2}, {3}, None, True, -1.5, 1+2j)", "[1, 2]", " 3 ", "'null'"]
)
def test_any_python_literal_may_be_expected(expected: str) -> None:
    item = code_item()
    item.code.tests[0].call.expected = expected
    assert violations_of(item) == []


def test_large_expected_values_are_checked_quickly() -> None:
    item = code_item()
    item.code.tests[0].call.expected = "[" + "1, " * 99_000 + "1]"
    assert violations_of(item) == []
    item.code.tests[0].call.expected = "(" + "1, " * 99_000 + "1)"
    item.code.tests[1].call.expected = "(" + "2, " * 99_000 + "2)"
    began = time.process_time()
    ((field, rule),) = violations_of(item)
    assert field == "a.items[0].code.tests[1].call.expected"
    assert "too much to check" in rule
    assert time.process_time() - began < 2


LITERALS = (
    *("(1, 'a', b'x', {1: 2}, {3}, None, True, -1.5, 1+2j)", "[1, 2]", " 3 ", "'null'", "...", "set()"),
    *("1e999", "{1: 2, 1: 3}", "'a' 'b'", "0x1f", "# c\n3", "{[1]: 2}", "9" * 4000, "9" * 5000, "NaN", "--1"),
    *(
        "[" * 61 + "]" * 61,
        "[" * 60 + "]" * 60,
        "-" * 50 + "1",
        "[" + "1," * 200_001 + "]",
        "f'x'",
        "()",
        "1j",
    ),
    *("'\\ud800'", "{None: ()}", "(-1,) * 2", "[...]", "{'a': {'b': [1, (2,)]}}", "\n3", "True", "b'\\xff'"),
)


@pytest.mark.parametrize("expected", LITERALS, ids=lambda text: text[:20])
def test_what_is_taken_here_is_taken_by_the_grader(expected: str) -> None:
    for item in (code_item(), javascript()):
        item.code.tests[0].call.expected = expected
        if not violations_of(item):
            compiled(item)


def test_the_good_items_are_taken_by_the_grader() -> None:
    for item in (code_item(), javascript(), script_item()):
        compiled(item)


def test_the_cost_of_patterns_is_bounded_for_an_assignment_as_a_whole() -> None:
    costly = "(" + "|".join(f"w{number}" for number in range(40)) + ")+"
    given = [Item(item=f"i{number}", points=1, text=TextSpec(pattern=costly)) for number in range(200)]
    began = time.process_time()
    rules = {rule for _, rule in violations_of(*given)}
    assert any("too complex" in rule for rule in rules)
    assert violations_of(given[0]) == []
    assert time.process_time() - began < 3


def test_no_item_crashes_the_rules() -> None:
    chance = random.Random(4)
    for _ in range(400):
        for field, rule in violations_of(any_message(Item, chance)):
            assert field.startswith("a.items[0]")
            assert rule
