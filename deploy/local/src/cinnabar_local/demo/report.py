"""What the demo prints at the end."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cinnabar.gateway.v1.submission_service_pb2 import ItemResult, Submission
from cinnabar.grader.v1.grade_pb2 import Grade, TestResult
from cinnabar_client import render
from cinnabar_common.names import SubmissionName
from cinnabar_local import sql
from cinnabar_local.demo.agreement import agreement, percentile
from cinnabar_local.demo.homework import Group, Homework
from cinnabar_local.demo.traffic import Handed, Traffic
from cinnabar_local.table import Addresses

_GOOD, _PARTIAL = 0.9, (0.4, 0.75)  # fractions of the points of a good and of a partial answer
_READABLE = 40  # characters that an example's answer has at least


@dataclass(frozen=True, slots=True)
class ShardCount:
    """Rows of one tenant on one shard."""

    grades: int
    tasks_graded: int
    tasks_not_graded: int


async def count_rows(addresses: Addresses, tenant: str) -> list[ShardCount]:
    """Counts in the primary of each shard. Raises sql.Unreachable."""
    counts: list[ShardCount] = []
    for shard in addresses.shards:
        async with sql.connected(shard.primary_url) as connection:
            numbers = [
                int(str(await connection.fetchval(statement, tenant)))
                for statement in (
                    "SELECT count(*) FROM grades WHERE tenant = $1",
                    "SELECT count(DISTINCT (submission_id, item_id)) FROM grades WHERE tenant = $1",
                    "SELECT count(*) FROM tasks WHERE tenant = $1",
                )
            ]
        counts.append(ShardCount(*numbers))
    return counts


def print_traffic(console: Console, traffic: Traffic, idle: Sequence[float]) -> None:
    """Counts, throughput and latencies."""
    graded = traffic.graded
    tasks = sum(len(h.final.results) for h in graded if h.final)
    over_rest, seconds = traffic.over_rest, traffic.seconds
    console.print()
    console.print(
        f"[bold]{len(graded)} submissions graded[/bold] ({tasks} items) of {len(traffic.handed)} accepted: "
        f"{over_rest} over REST, {len(traffic.handed) - over_rest} over gRPC, all through Envoy"
    )
    console.print(
        f"[bold]{len(graded) / seconds:.0f} graded per second[/bold]: all of them in {seconds:.1f} s "
        "from the first submit to the last grade seen"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("submitted → grade seen by a watcher", "p50", "p90", "p99"):
        table.add_column(heading, header_style="bold", justify="left" if "→" in heading else "right")
    table.add_row("all at once (waiting in the queue included)", *_latencies([h.latency for h in graded]))
    if idle:
        table.add_row(f"one at a time ({len(idle)} on the idle suite)", *_latencies(idle))
    console.print(table)


def print_agreement(console: Console, homework: Homework, graded: Sequence[Handed]) -> None:
    """Pearson's r and RMSE by group, beside what is to be reached."""
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for handed in graded:
        assert handed.final is not None
        for result in handed.final.results:
            if result.HasField("grade") and result.item in handed.hand_in.human:
                share = _share(result.grade)
                pairs[handed.hand_in.group].append((share, handed.hand_in.human[result.item]))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ("agreement with the teachers", "answers", "r", "RMSE (of 1)", "to reach", "")
    for heading in headings:
        table.add_column(
            heading, header_style="bold", justify="right" if heading in headings[1:4] else "left"
        )
    for key, group in homework.groups.items():
        if pairs[key] and key not in homework.programs:
            table.add_row(*_agreement_row(group, pairs[key]))
    console.print()
    console.print(table)


def print_programs(console: Console, homework: Homework, graded: Sequence[Handed]) -> None:
    """Verdicts of the tests of programs, and how often they say what the course said."""
    counts: Counter[str] = Counter()
    agreed = partial = total = 0
    for handed in graded:
        if handed.hand_in.group not in homework.programs or handed.final is None:
            continue
        for result in handed.final.results:
            counts.update(_verdict(test) for test in result.grade.tests)
            share = _share(result.grade)
            total += 1
            partial += 0 < share < 1
            agreed += (share == 1) == (handed.hand_in.human[result.item] == 1)
    if not total:
        return
    console.print()
    console.print(f"[bold]{total} programs[/bold] in the sandbox, {partial} of them with partial credit")
    console.print(f"all tests passed, or not, is what their course says too for {agreed} of {total}")
    console.print("tests: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


def _verdict(test: TestResult) -> str:
    return TestResult.Verdict.Name(test.verdict).replace("_", " ").lower()


def print_examples(console: Console, homework: Homework, examples: Sequence[tuple[str, Submission]]) -> None:
    """Grades as their students see them."""
    titles = {str(name): resource for name, resource in homework.assignments.items()}
    for title, example in examples:
        name = SubmissionName.parse(example.name)
        console.print()
        console.print(Text(title, style="bold"))
        asked = titles.get(str(name.parent)) if name is not None else None
        console.print(Padding(render.submission(example, asked), (0, 0, 0, 2)))


def print_rows(console: Console, counts: Sequence[ShardCount], expected: int) -> str:
    """Grade rows in SQL; what is wrong with them, "" when nothing is."""
    console.print()
    for number, count in enumerate(counts):
        console.print(f"shard {number}: {count.grades} grade rows for {count.tasks_graded} tasks")
    rows = sum(count.grades for count in counts)
    distinct = sum(count.tasks_graded for count in counts)
    left = sum(count.tasks_not_graded for count in counts)
    if rows == distinct == expected and not left:
        console.print(f"[green]exactly one grade row for each of the {expected} accepted tasks[/green]")
        return ""
    found = f"SQL has {rows} grade rows for {distinct} tasks and {left} tasks without a grade"
    return f"{expected} tasks were accepted, but {found}"


def print_how_to_go_on(console: Console, *, up: str, address: str, token: str, example: str) -> None:
    """The commands that continue from here."""
    parent = example.rpartition("/submissions/")[0]
    course, _, assignment = parent.removeprefix("courses/").partition("/assignments/")
    lines = (
        f"{up}   # the suite again, on the same data and ports; Ctrl-C stops it",
        f"export CINNABAR_ADDRESS={address} CINNABAR_TOKEN={token}",
        f".venv/bin/cinnabar list {course}/{assignment} --limit 5",
        f".venv/bin/cinnabar show {example}",
        ".venv/bin/cinnabar assignment create examples/networks-quiz.yaml",
        ".venv/bin/cinnabar submit networks-101/quiz --file examples/networks-answers.jsonl --wait",
        f".venv/bin/cinnabar ops queues --token {token.replace('.instructor.', '.operator.')}",
    )
    console.print()
    console.print("[bold]How to go on[/bold]")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


def choose_examples(graded: Sequence[Handed]) -> list[tuple[str, Handed]]:
    """A good, a partial and a flagged one, as far as there are any."""
    texts = [handed for handed in graded if handed.final and not _tests(handed.final)]
    good = _first(texts, lambda grade: _share(grade) >= _GOOD and not grade.flags)
    low, high = _PARTIAL
    partial = _first(texts, lambda grade: low <= _share(grade) <= high and not grade.flags)
    flagged = _first(texts, lambda grade: bool(grade.flags), least=1)
    program = _first(graded, lambda grade: bool(grade.tests) and 0 < _share(grade) < 1)
    chosen = (
        ("A good answer", good),
        ("A partial answer", partial),
        ("A flagged answer", flagged),
        ("A program that passes some tests", program),
    )
    return [(f"{title}{_teacher(handed)}", handed) for title, handed in chosen if handed is not None]


def _first(
    graded: Sequence[Handed], fits: Callable[[Grade], bool], *, least: int = _READABLE
) -> Handed | None:
    """The first whose first item is a text of at least ``least`` characters with a grade that fits."""
    for handed in graded:
        assert handed.final is not None
        result, answer = handed.final.results[0], handed.hand_in.request.submission.answers[0]
        readable = answer.HasField("text") and len(answer.text) >= least
        if readable and result.state == ItemResult.GRADED and fits(result.grade):
            return handed
    return None


def _tests(final: Submission) -> bool:
    return any(result.grade.tests for result in final.results)


def _teacher(handed: Handed) -> str:
    """What the teacher gave for the first item."""
    given = handed.hand_in.human.get(handed.hand_in.request.submission.answers[0].item)
    return "" if given is None else f" (the teacher gave {given:.0%} for its first item)"


def _share(grade: Grade) -> float:
    return grade.score / grade.max_score if grade.max_score else 0.0


def _latencies(seconds: Sequence[float]) -> tuple[str, ...]:
    return tuple(_duration(percentile(seconds, share)) for share in (0.5, 0.9, 0.99))


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _agreement_row(group: Group, pairs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    found = agreement(pairs)
    pearson = "-" if math.isnan(found.pearson) else f"{found.pearson:.3f}"
    return group.title, str(found.count), pearson, f"{found.rmse:.3f}", group.bar or "-", group.note
