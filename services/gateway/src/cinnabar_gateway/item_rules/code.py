"""Items that are answered with a program."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, cast

from google.protobuf.duration_pb2 import Duration

from cinnabar.grader.v1.item_pb2 import (
    CallTest,
    Checker,
    CodeLimits,
    CodeSpec,
    CodeTest,
    ScriptTest,
    StdioTest,
)
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway import source_files
from cinnabar_gateway.item_rules.closed import tolerances
from cinnabar_gateway.item_rules.lists import Violations, bytes_of_utf8, ids, sum_of_points
from cinnabar_gateway.item_rules.quiet import quiet

MAX_FILES_BYTES = 1024 * 1024
MAX_TESTS = 200
MAX_TITLE = 200
MAX_ARGUMENTS = 100
MAX_STREAM_BYTES = 1024 * 1024
MAX_CALL_BYTES = 64 * 1024
MAX_EXPECTED_BYTES = 1024 * 1024
MAX_CHECKER_BYTES = 256 * 1024
MAX_PREAMBLE_BYTES = 64 * 1024
MAX_PYTHON_BYTES = 512 * 1024
"""Of all Python in an assignment that is parsed here; the parser stops everything else meanwhile."""
MAX_PARTS = 100_000
MAX_DEPTH = 60
"""Of an expected value; graders take a little more."""
_MIB = 1 << 20
_CPU_SECONDS = (0.01, 60)
_WALL_SECONDS = (0.01, 120)
_LANGUAGES = frozenset(CodeSpec.Language.values()) - {CodeSpec.Language.LANGUAGE_UNSPECIFIED}
_CALLABLE = (CodeSpec.Language.PYTHON, CodeSpec.Language.JAVASCRIPT)
_OF_THE_STUDENT = "submission"
_OF_THE_RESULTS = "results"
# JSON that means the same in Python: no true, false or null outside of what might be a string.
_NAMES = re.compile(r"true|false|null")


@dataclass(slots=True)
class Parsing:
    """How much Python may still be parsed, and what has been."""

    left: int = MAX_PYTHON_BYTES
    known: dict[str, str] = field(default_factory=dict[str, str])

    def problem(self, source: str, mode: str) -> str:
        """Why ``source`` is no Python ("exec", "eval", or "literal"); "" when it is."""
        key = f"{mode}\n{source}"
        if key not in self.known:
            if len(source) > self.left:
                return f"is too much to check: an assignment may have {MAX_PYTHON_BYTES} characters of Python"
            self.left -= len(source)
            self.known[key] = _problem(source, mode)
        return self.known[key]


def _problem(source: str, mode: str) -> str:
    try:
        with quiet():
            if mode == "literal":
                return _excess(ast.literal_eval(source.strip()))
            ast.parse(source, mode=mode)
    except SyntaxError as error:
        return f"does not parse: {error.msg}"
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        return f"does not parse: {type(error).__name__}"
    return ""


def code(spec: CodeSpec, points: float, at: str, parsing: Parsing) -> Violations:
    """Every rule that a code item of ``points`` points breaks."""
    if spec.language and spec.language not in _LANGUAGES:
        yield FieldViolation(f"{at}.language", "must be a language of the list")
    yield from source_files.violations(spec.files, f"{at}.files", MAX_FILES_BYTES)
    yield from _limits(spec.limits, f"{at}.limits")
    yield from bytes_of_utf8(spec.preamble, MAX_PREAMBLE_BYTES, f"{at}.preamble")
    if spec.preamble and spec.language in _LANGUAGES - {CodeSpec.Language.PYTHON}:
        yield FieldViolation(f"{at}.preamble", "is for Python only")
    if bool(spec.tests) == spec.HasField("script"):
        yield FieldViolation(at, "must have either tests or script")
    if spec.HasField("script"):
        yield from _script(spec.script, f"{at}.script")
    if len(spec.tests) > MAX_TESTS:
        yield FieldViolation(f"{at}.tests", f"must be at most {MAX_TESTS}")
        return
    yield from ids([test.test for test in spec.tests], f"{at}.tests", "test")
    yield from sum_of_points([test.points for test in spec.tests], points, f"{at}.tests", may_be_zero=True)
    for index, test in enumerate(spec.tests):
        yield from _test(test, spec.language, f"{at}.tests[{index}]", parsing)


def _limits(limits: CodeLimits, at: str) -> Violations:
    yield from _within(limits, "cpu_time", _CPU_SECONDS, "10 ms to 60 s", at)
    yield from _within(limits, "wall_time", _WALL_SECONDS, "10 ms to 120 s", at)
    for name, least, most, words in (
        ("memory_bytes", 16 * _MIB, 2048 * _MIB, "16 MiB to 2 GiB"),
        ("processes", 1, 256, "1 to 256"),
        ("output_bytes", 1, 16 * _MIB, "1 byte to 16 MiB"),
        ("file_bytes", 1, 64 * _MIB, "1 byte to 64 MiB"),
    ):
        value: int = getattr(limits, name)
        if value and not least <= value <= most:
            yield FieldViolation(f"{at}.{name}", f"must be {words}, or 0 for the default")


def _within(limits: CodeLimits, name: str, bounds: tuple[float, float], words: str, at: str) -> Violations:
    if limits.HasField(name):  # pyright: ignore[reportArgumentType]  # one of two names of fields
        time: Duration = getattr(limits, name)
        seconds = time.seconds + time.nanos / 1e9
        if not (0 <= time.nanos < 1_000_000_000 and bounds[0] <= seconds <= bounds[1]):
            yield FieldViolation(f"{at}.{name}", f"must be {words}")


def _script(script: ScriptTest, at: str) -> Violations:
    yield from source_files.violations(script.files, f"{at}.files", MAX_FILES_BYTES)
    for index, file in enumerate(script.files):
        if file.path.partition("/")[0] == _OF_THE_STUDENT or file.path == _OF_THE_RESULTS:
            yield FieldViolation(
                f"{at}.files[{index}].path",
                f"must not be in the way: {_OF_THE_STUDENT} and {_OF_THE_RESULTS} are folders of the run",
            )
    yield from _arguments(script.command, f"{at}.command")
    if script.command and not script.command[0].strip():
        yield FieldViolation(f"{at}.command[0]", "must name a program")
    if script.form not in ScriptTest.Form.values():
        yield FieldViolation(f"{at}.form", "must be GRADESCOPE or PRAIRIELEARN")


def _arguments(arguments: Sequence[str], at: str) -> Violations:
    if len(arguments) > MAX_ARGUMENTS:
        yield FieldViolation(at, f"must be at most {MAX_ARGUMENTS}")
    for index, argument in enumerate(arguments):
        if "\0" in argument:
            yield FieldViolation(f"{at}[{index}]", "must not contain U+0000")


def _test(test: CodeTest, language: int, at: str, parsing: Parsing) -> Violations:
    if len(test.title) > MAX_TITLE:
        yield FieldViolation(f"{at}.title", f"must be at most {MAX_TITLE} characters")
    match test.WhichOneof("form"):
        case None:
            yield FieldViolation(at, "must have one of stdio, call")
        case "stdio":
            yield from _stdio(test.stdio, f"{at}.stdio", parsing)
        case "call":
            if language in _LANGUAGES and language not in _CALLABLE:
                yield FieldViolation(f"{at}.call", "is for Python and JavaScript only")
            yield from _call(test.call, language, f"{at}.call", parsing)


def _stdio(test: StdioTest, at: str, parsing: Parsing) -> Violations:
    yield from bytes_of_utf8(test.input, MAX_STREAM_BYTES, f"{at}.input")
    yield from _arguments(test.arguments, f"{at}.arguments")
    yield from bytes_of_utf8(test.expected_output, MAX_STREAM_BYTES, f"{at}.expected_output")
    if test.HasField("checker"):
        yield from _checker(test.checker, f"{at}.checker", parsing)


def _checker(checker: Checker, at: str, parsing: Parsing) -> Violations:
    match checker.WhichOneof("kind"):
        case None:
            yield FieldViolation(at, "must have one of exact, tokens, numbers, program")
        case "numbers":
            numbers = checker.numbers
            yield from tolerances(numbers.absolute_tolerance, numbers.relative_tolerance, f"{at}.numbers")
        case "program":
            source = checker.program.source
            if len(source.encode()) > MAX_CHECKER_BYTES:
                yield from bytes_of_utf8(source, MAX_CHECKER_BYTES, f"{at}.program.source")
            elif problem := parsing.problem(source, "exec"):
                yield FieldViolation(f"{at}.program.source", problem)
        case _:
            pass


def _call(test: CallTest, language: int, at: str, parsing: Parsing) -> Violations:
    if not 0 <= test.tolerance < math.inf:
        yield FieldViolation(f"{at}.tolerance", "must be 0 or more and finite")
    python = language == CodeSpec.Language.PYTHON
    if len(test.call.encode()) > MAX_CALL_BYTES:
        yield from bytes_of_utf8(test.call, MAX_CALL_BYTES, f"{at}.call")
    elif test.call and not test.call.strip():
        yield FieldViolation(f"{at}.call", "must not be blank")
    elif python and test.call and (problem := parsing.problem(test.call.strip(), "eval")):
        yield FieldViolation(f"{at}.call", f"must be an expression, but it {problem}")
    if len(test.expected.encode()) > MAX_EXPECTED_BYTES:
        yield from bytes_of_utf8(test.expected, MAX_EXPECTED_BYTES, f"{at}.expected")
    elif test.expected and python:
        if not _means_the_same(test.expected) and (problem := parsing.problem(test.expected, "literal")):
            yield FieldViolation(f"{at}.expected", f"must be a Python literal, but it {problem}")
    elif test.expected and language == CodeSpec.Language.JAVASCRIPT and not _is_json(test.expected):
        yield FieldViolation(
            f"{at}.expected", f"must be JSON of at most {MAX_PARTS} values, {MAX_DEPTH} deep"
        )


def _means_the_same(text: str) -> bool:
    """Whether a text is JSON and the same as a Python literal; quick, also for a large one."""
    return not _NAMES.search(text) and _is_json(text)


def _is_json(text: str) -> bool:
    try:
        value = json.loads(text, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError):
        return False
    return not _excess(value)


def _excess(value: object) -> str:
    """Why a value cannot be compared with: it is too large, too deep, or "..."."""
    parts = 0
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        part, depth = pending.pop()
        parts += 1
        if parts > MAX_PARTS or depth > MAX_DEPTH:
            return f"has more than {MAX_PARTS} values, or is more than {MAX_DEPTH} deep"
        if part is ...:
            return "has an ellipsis"
        if isinstance(part, dict):
            pairs = cast("dict[object, object]", part)
            pending += [(one, depth + 1) for pair in pairs.items() for one in pair]
        elif isinstance(part, list | tuple | set):
            pending += [(one, depth + 1) for one in cast("Iterable[object]", part)]
    return ""


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(text)
    return number


def _refused(name: str) -> NoReturn:
    raise ValueError(name)
