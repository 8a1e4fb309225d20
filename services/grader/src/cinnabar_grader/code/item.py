"""Items of programs, compiled: what is run, in which limits, and what it is compared with."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from cinnabar_grader.code.checkers import Checker, Tokens
from cinnabar_grader.code.languages import MIB, Language
from cinnabar_grader.code.sources import is_path
from cinnabar_grader.code.values import NoValue, Value, from_json, literal
from cinnabar_grader.graders import ANSWER
from cinnabar_grader.phrases import Language as Tongue
from cinnabar_grader.points import total_of
from cinnabar_grader.sandbox import Limits

MAX_TESTS = 200
MAX_ARGUMENTS = 64 * 1024
"""Bytes of the arguments of a command: the kernel takes little more."""
OPEN_FILES = 256
CPU_SECONDS = 5.0
"""Of a run, where the item does not say."""
MEMORY_BYTES = {Language.JAVA: 512 * MIB}
"""Of a run, where the item does not say; 256 MiB for other languages."""
_POINTS_DUST = 1e-6
CALLABLE = frozenset({Language.PYTHON, Language.JAVASCRIPT})
"""Languages with call tests."""


@dataclass(slots=True, frozen=True)
class Stdio:
    """Runs the program on an input."""

    input: bytes
    arguments: Sequence[str]
    expected: bytes
    checker: Checker = field(default_factory=Tokens)


@dataclass(slots=True, frozen=True)
class Call:
    """Evaluates an expression after the program has run."""

    call: str
    expected: Value
    expected_text: str
    """As the instructor wrote it."""
    tolerance: float = 0.0


Form: TypeAlias = "Stdio | Call"


@dataclass(slots=True, frozen=True)
class Test:
    """One test of an item."""

    __test__ = False  # it is no test of ours

    test: str
    points: float
    form: Form
    title: str = ""
    hidden: bool = False


class ScriptForm(Enum):
    """Whose form the results of a script have."""

    GRADESCOPE = 1
    PRAIRIELEARN = 2


@dataclass(slots=True, frozen=True)
class Script:
    """Runs tests by itself and writes a file of results."""

    files: Mapping[str, bytes]
    command: Sequence[str]
    form: ScriptForm


@dataclass(slots=True, frozen=True)
class Part:
    """A criterion of the grade of an item that nobody could run."""

    criterion: str
    points: float


class CodeItem:
    """An item of a program. ValueError, which names the rule, when the specification makes no sense.

    ``limits`` are those of a run. Exactly one of ``tests`` and ``script``.
    """

    takes_archives = True
    """Its files may be zip archives."""

    def __init__(
        self,
        *,
        points: float,
        language: Language,
        tests: Sequence[Test] = (),
        script: Script | None = None,
        files: Mapping[str, bytes] | None = None,
        limits: Limits,
        preamble: str = "",
        tongue: Tongue = Tongue.ENGLISH,
    ) -> None:
        if bool(tests) == (script is not None):
            raise ValueError("exactly one of tests and script must be given")
        if len(tests) > MAX_TESTS or len({test.test for test in tests}) < len(tests):
            raise ValueError(f"at most {MAX_TESTS} tests, each with an id of its own")
        if preamble and language is not Language.PYTHON:
            raise ValueError("a preamble is for Python only")
        if language not in CALLABLE and any(isinstance(test.form, Call) for test in tests):
            raise ValueError("call tests are for Python and JavaScript only")
        if tests:
            if not all(test.points >= 0 for test in tests):
                raise ValueError("the points of a test must be 0 or more")
            if abs(math.fsum(test.points for test in tests) - points) > _POINTS_DUST * points:
                raise ValueError("the points of all tests together must be those of the item")
        self.points = points
        self.program = language
        self.tests = tests
        self.script = script
        self.files = files or {}
        self.limits = limits
        self.preamble = preamble
        self.language = tongue
        for path in (*self.files, *(script.files if script is not None else ())):
            if not is_path(path):
                raise ValueError(f"the path of a file is not allowed: {path[:80]!r}")
        commands = [test.form.arguments for test in tests if isinstance(test.form, Stdio)]
        commands += [script.command] if script is not None else []
        for words in map("".join, commands):
            if "\0" in words or len(words.encode()) > MAX_ARGUMENTS:
                raise ValueError(f"arguments must have no NUL and at most {MAX_ARGUMENTS} bytes together")
        earning = [test for test in tests if test.points > 0]
        self.criteria = [Part(test.test, test.points) for test in earning] or [Part(ANSWER, points)]
        assert total_of([part.points for part in self.criteria]) > 0


def limits_of(
    language: Language,
    *,
    cpu_seconds: float | None = None,
    wall_seconds: float | None = None,
    memory_bytes: int = 0,
    processes: int = 0,
    output_bytes: int = 0,
    file_bytes: int = 0,
) -> Limits:
    """Limits of a run, with defaults for what is None or 0. ValueError for those that nothing can run in."""
    cpu = CPU_SECONDS if cpu_seconds is None else cpu_seconds
    wall = 2 * cpu + 1 if wall_seconds is None else wall_seconds
    limits = Limits(
        cpu_seconds=cpu,
        wall_seconds=wall,
        memory_bytes=memory_bytes or MEMORY_BYTES.get(language, 256 * MIB),
        processes=processes or 64,
        open_files=OPEN_FILES,
        file_bytes=file_bytes or MIB,
        output_bytes=output_bytes or MIB,
    )
    for name, value, least, most in (
        ("limits.cpu_time", cpu, 0.01, 60),
        ("limits.wall_time", wall, 0.01, 121),
        ("limits.memory_bytes", limits.memory_bytes, 16 * MIB, 2048 * MIB),
        ("limits.processes", limits.processes, 1, 256),
        ("limits.output_bytes", limits.output_bytes, 1, 16 * MIB),
        ("limits.file_bytes", limits.file_bytes, 1, 64 * MIB),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} must be {least} to {most}")
    return limits


def call_test(language: Language, *, call: str, expected: str, tolerance: float) -> Call:
    """A call test. ValueError when its expected value or tolerance is none."""
    if not call.strip():
        raise ValueError("a call must not be empty")
    if not 0 <= tolerance < math.inf:
        raise ValueError("the tolerance of a call must be 0 or more and finite")
    if language is Language.PYTHON:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(call, mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError("a call is no expression of Python") from None
    try:
        value = from_json(expected) if language is Language.JAVASCRIPT else literal(expected)
    except NoValue as error:
        raise ValueError(f"the expected value of a call is {error}") from None
    return Call(call, value, expected.strip(), tolerance)
