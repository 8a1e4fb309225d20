"""Items of programs, and a sandbox that plays runs instead of running anything."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cinnabar_grader.code.grader import CodeGrader
from cinnabar_grader.code.item import CodeItem, Script, Stdio, Test, call_test, limits_of
from cinnabar_grader.code.languages import Language, toolchains
from cinnabar_grader.graders import (
    AnswerValue,
    Graded,
    LeaseToken,
    Progress,
    Task,
    TestResult,
    TestVerdict,
)
from cinnabar_grader.sandbox import Ending, Limits, Run, Sandbox

PYTHON = "/usr/bin/python3"
SUM = [("1 2", "3"), ("4 5", "9"), ("-1 1", "0")]
"""Inputs and outputs of a program that adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run that was asked for."""

    argv: Sequence[str]
    stdin: bytes
    limits: Limits
    keep: bool
    files: Mapping[str, bytes]


Player = Callable[[Order], Run]


@dataclass
class PlayedSandbox:
    """A `Sandbox` whose runs are what ``play`` says."""

    play: Player
    mechanism: str = "played"
    strong: bool = True
    missing: Sequence[str] = ()
    slots: int = 2
    python: str = PYTHON
    orders: list[Order] = field(default_factory=list[Order])

    @asynccontextmanager
    async def folder(self, files: Mapping[str, bytes]) -> AsyncGenerator[PlayedFolder]:
        """See Sandbox."""
        yield PlayedFolder(self, files)


@dataclass
class PlayedFolder:
    """See Folder."""

    sandbox: PlayedSandbox
    files: Mapping[str, bytes]

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        keep: bool = False,
        collect: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """See Folder."""
        order = Order(argv=argv, stdin=stdin, limits=limits, keep=keep, files=self.files)
        self.sandbox.orders.append(order)
        return self.sandbox.play(order)


def exited(stdout: bytes = b"", *, stderr: bytes = b"", code: int = 0, **others: Any) -> Run:
    """A run that ended by itself."""
    return Run(ending=Ending.EXITED, exit_code=code, stdout=stdout, stderr=stderr, **others)


def stdio(*, hidden: bool = False, **others: Any) -> list[Test]:
    """A test of a point for each of `SUM`."""
    return [
        Test(f"sum-{number}", 1, Stdio(given.encode(), [], wanted.encode(), **others), hidden=hidden)
        for number, (given, wanted) in enumerate(SUM, start=1)
    ]


def calls(language: Language, *expected: tuple[str, str], hidden: bool = False) -> list[Test]:
    """A test of a point for each call and the value it must give."""
    return [
        Test(
            f"call-{number}",
            1,
            call_test(language, call=call, expected=value, tolerance=0),
            hidden=hidden,
        )
        for number, (call, value) in enumerate(expected, start=1)
    ]


def item(
    tests: Sequence[Test] = (),
    language: Language = Language.PYTHON,
    *,
    script: Script | None = None,
    **others: Any,
) -> CodeItem:
    """An item that is worth a point for each test; what is not a limit goes to the item."""
    limits = {
        name: others.pop(name) for name in [*others] if name.endswith(("_seconds", "_bytes", "processes"))
    }
    return CodeItem(
        points=others.pop("points", sum(test.points for test in tests)),
        language=language,
        tests=tests,
        script=script,
        limits=limits_of(language, **limits),
        **others,
    )


async def grade(
    sandbox: Sandbox,
    asked: CodeItem,
    answer: AnswerValue,
    *,
    reports: list[Progress] | None = None,
    task_seconds: float = 100,
) -> Graded:
    """The grade of an answer."""
    find = _pretended if isinstance(sandbox, PlayedSandbox) else shutil.which
    chain = toolchains(sandbox.python, find)[asked.program]
    grader = CodeGrader(chain, sandbox, task_seconds=task_seconds)
    task = Task(LeaseToken("lease"), grader.queue, asked, answer)
    found = await grader.grade(task, (reports if reports is not None else []).append)
    assert isinstance(found, Graded)
    assert abs(sum(part.score for part in found.criteria) - found.score) < 1e-9
    assert abs(sum(part.max_score for part in found.criteria) - found.max_score) < 1e-9
    return found


def _pretended(name: str) -> str:
    return f"/usr/bin/{name}"


def verdicts(tests: Sequence[TestResult]) -> list[TestVerdict]:
    """Of tests, in their order."""
    return [test.verdict for test in tests]
