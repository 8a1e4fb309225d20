"""What the run of a test came to, and what the student reads about it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import zip_longest

from cinnabar_grader.code.checkers import Exact, Numbers, Tokens
from cinnabar_grader.code.item import CodeItem
from cinnabar_grader.code.languages import MIB, Toolchain
from cinnabar_grader.code.texts import cut, last, without_folders
from cinnabar_grader.graders import FailureCode, TestVerdict, Ungradable
from cinnabar_grader.phrases import phrase
from cinnabar_grader.sandbox import Ending, Run

_LINE_SHOWN = 200


@dataclass(slots=True, frozen=True)
class Judged:
    """Of one test: its verdict, the share of its points, and texts."""

    verdict: TestVerdict
    share: float = 0.0
    message: str = ""
    output: str = ""
    signal: str = ""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0


def whole(run: Run) -> Run:
    """The run, unless the box itself broke. Ungradable (INTERNAL) then."""
    if run.ending is Ending.FAILED:
        raise Ungradable(FailureCode.INTERNAL, f"the sandbox failed: {run.reason[:200]}")
    return run


def stopped(run: Run, item: CodeItem, toolchain: Toolchain) -> tuple[TestVerdict, str] | None:
    """Verdict and message of a run that did not come to its end; None when it did."""
    tongue, limits = item.language, item.limits
    match run.ending:
        case Ending.TIME_LIMIT:
            words = {"cpu": limits.cpu_seconds, "wall": limits.wall_seconds}
            return TestVerdict.TIME_LIMIT, phrase(tongue, "code_time", **words)
        case Ending.MEMORY_LIMIT:
            return TestVerdict.MEMORY_LIMIT, phrase(
                tongue, "code_memory", mib=toolchain.limits(limits).memory_bytes // MIB
            )
        case Ending.OUTPUT_LIMIT:
            return TestVerdict.OUTPUT_LIMIT, phrase(tongue, "code_output")
        case Ending.FORBIDDEN:
            return TestVerdict.FORBIDDEN, phrase(tongue, "code_forbidden")
        case Ending.EXITED if run.exit_code == 0:
            return None
        case _:
            pass
    if toolchain.exhausted.search(run.stderr):
        words = {"mib": toolchain.limits(limits).memory_bytes // MIB}
        return TestVerdict.MEMORY_LIMIT, phrase(tongue, "code_memory", **words)
    if run.ending is Ending.SIGNALED:
        said = phrase(tongue, "code_signal", signal=signal_name(run.signal))
    else:
        said = phrase(tongue, "code_exit", code=run.exit_code)
    return TestVerdict.RUNTIME_ERROR, f"{said}\n{errors_of(run, item)}".rstrip()


def errors_of(run: Run, item: CodeItem) -> str:
    """The end of what a program wrote to standard error."""
    return without_folders(cut(last(run.stderr)), preamble_lines(item))


def judged(
    run: Run, verdict: TestVerdict, *, share: float = 0.0, message: str = "", output: bytes = b""
) -> Judged:
    """A verdict with what is known of the run."""
    return Judged(
        verdict,
        share,
        cut(message),
        cut(output),
        signal_name(run.signal) if run.signal else "",
        run.cpu_seconds,
        run.wall_seconds,
        run.memory_bytes,
    )


def preamble_lines(item: CodeItem) -> int:
    """Lines that stand before the student's own."""
    return len(item.preamble.splitlines())


def signal_name(number: int) -> str:
    """For example "SIGSEGV"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def difference(output: bytes, expected: bytes, checker: Exact | Tokens | Numbers, item: CodeItem) -> str:
    """Where an output first differs from the expected one, in words; "" when they agree."""
    if checker.agree(output, expected):
        return ""
    found, wanted = output.splitlines(), expected.splitlines()
    if not isinstance(checker, Exact):
        found, wanted = ([line for line in lines if line.split()] for lines in (found, wanted))
    for number, (line, other) in enumerate(zip_longest(found, wanted), start=1):
        if line is None or other is None or not checker.agree(line, other):
            return phrase(
                item.language,
                "code_differs",
                line=number,
                expected=_quoted(other, item),
                found=_quoted(line, item),
            )
    return phrase(item.language, "code_spaces")


def _quoted(line: bytes | None, item: CodeItem) -> str:
    return phrase(item.language, "code_nothing") if line is None else f"“{cut(line, _LINE_SHOWN)}”"
