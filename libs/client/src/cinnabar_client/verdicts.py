"""How the tests of programs went, as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from rich.table import Table
from rich.text import Text

from cinnabar.grader.v1.grade_pb2 import Provenance, TestResult

_KIB, _MIB = 1 << 10, 1 << 20
_LONG = 200  # characters of a message or an output that are shown
_STYLES = {
    TestResult.ACCEPTED: "green",
    TestResult.INTERNAL: "yellow",
    TestResult.NOT_RUN: "yellow",
}


def tests(results: Iterable[TestResult]) -> Table:
    """Tests, one a line: verdict, points, time, memory, and what there is to say."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("test", "verdict", "points", "time", "memory", ""):
        table.add_column(heading, header_style="dim", overflow="fold")
    for result in results:
        table.add_row(
            Text(result.title or result.test),
            _verdict(result),
            f"{_points(result.score)} / {_points(result.max_score)}",
            _time(result),
            size(result.memory_bytes) if result.memory_bytes else "-",
            _words(result),
        )
    return table


def tally(results: Iterable[TestResult]) -> str:
    """How many tests have finished, and how many of them are accepted."""
    given = list(results)
    accepted = sum(result.verdict == TestResult.ACCEPTED for result in given)
    return f"{len(given)} {'test' if len(given) == 1 else 'tests'} finished, {accepted} accepted"


def provenance(made_by: Provenance) -> Text:
    """Which program made a score, and what else there is to know of how."""
    model = f", {made_by.model}" if made_by.model else ""
    text = Text(f"{made_by.grader} {made_by.version}{model}", style="dim")
    if made_by.input_tokens or made_by.output_tokens:
        text.append(f", {made_by.input_tokens} + {made_by.output_tokens} tokens")
    if made_by.shared:
        text.append(" (shared with an identical answer)", style="dim")
    if made_by.fallback:
        reason = f": {made_by.fallback_reason}" if made_by.fallback_reason else ""
        text.append(f" (stood in for another{reason})", style="yellow")
    return text


def quotes(evidence: Iterable[str]) -> Text:
    """The passages of an answer that a score rests on."""
    return Text("\n").join(Text(f"“{_short(passage)}”", style="italic dim") for passage in evidence)


def size(count: int) -> str:
    """Bytes in a unit that suits them."""
    if count >= _MIB:
        return f"{count / _MIB:.1f} MiB"
    return f"{count / _KIB:.0f} KiB" if count >= _KIB else f"{count} B"


def _verdict(result: TestResult) -> Text:
    words = TestResult.Verdict.Name(result.verdict).lower().replace("_", " ")
    if result.signal:
        words += f" ({result.signal})"
    text = Text(words, style=_STYLES.get(result.verdict, "red"))
    return text.append(" hidden", style="dim") if result.hidden else text


def _time(result: TestResult) -> str:
    times = [_seconds(time) for time in (result.cpu_time, result.wall_time)]
    return f"{times[0]} of {times[1]}" if result.HasField("wall_time") else times[0]


def _seconds(duration: Duration) -> str:
    seconds = duration.ToTimedelta().total_seconds()
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _words(result: TestResult) -> Text:
    text = Text(_short(result.message))
    if result.output:
        text.append("\n" if text else "").append(_short(result.output), style="dim")
    return text


def _points(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
