"""Resources as a person reads them in a terminal (rich renderables), and as plain JSON data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.operations_service_pb2 import Conservation, DeadLetter, HealthReport, Queue
from cinnabar.gateway.v1.submission_service_pb2 import GradingEstimate, ItemResult, Submission
from cinnabar.grader.v1.grade_pb2 import Answer, CriterionScore, Grade
from cinnabar.grader.v1.item_pb2 import CodeSpec, FreeTextSpec, Item
from cinnabar_client import verdicts

_STATE_STYLES = {
    "GRADED": "green",
    "QUEUED": "cyan",
    "GRADING": "cyan",
    "CANCELLED": "yellow",
    "FAILED": "red",
}
_GOOD, _FAIR = 0.8, 0.4  # fractions of the points from which a score is green, and yellow
_LONG = 400  # characters of an answer or a question that are shown


def data(message: Message, *, zeros: bool = False) -> dict[str, object]:
    """The message as JSON data, in the field names of the REST API; with ``zeros`` those that are 0 too."""
    return cast("dict[str, object]", MessageToDict(message, always_print_fields_with_no_presence=zeros))


def points(value: float) -> str:
    """Points without needless digits."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def answer_text(answer: Answer) -> str:
    """What the student answered, on one line."""
    match answer.WhichOneof("value"):
        case "choice":
            return ", ".join(answer.choice.options) or "(none)"
        case "number":
            return f"{answer.number.value:g} {answer.number.unit}".rstrip()
        case "code":
            return ", ".join(f"{file.path} ({len(file.content)} characters)" for file in answer.code.files)
        case "file":
            return f"{answer.file.upload} ({answer.file.content_type}, {answer.file.size_bytes} bytes)"
        case _:
            return " ".join(answer.text.split()) or "(empty)"


def assignment(resource: Assignment) -> RenderableType:
    """An assignment with its items."""
    table = Table(box=None, pad_edge=False, expand=True)
    for heading in ("item", "kind", "points"):
        table.add_column(heading, no_wrap=True, style="bold" if heading == "item" else "")
    table.add_column("question", ratio=1)
    for item in resource.items:
        table.add_row(item.item, _kind(item), points(item.points), Text(_short(item.prompt)))
    head = Text.assemble((resource.display_name or resource.name, "bold"), "\n", (_facts(resource), "dim"))
    return Panel(Group(head, Text(), table), title=Text(resource.name), title_align="left")


def assignments(resources: Iterable[Assignment]) -> Table:
    """Assignments, one a line."""
    table = columns("name", "title", "items", "points", "updated")
    for resource in resources:
        total = sum(item.points for item in resource.items)
        table.add_row(
            resource.name,
            Text(resource.display_name),
            str(len(resource.items)),
            points(total),
            moment(resource.update_time),
        )
    return table


def submissions(resources: Iterable[Submission]) -> Table:
    """Submissions, one a line."""
    table = columns("name", "author", "state", "score", "handed in")
    for resource in resources:
        score = f"{points(resource.score)} / {points(resource.max_score)}"
        table.add_row(
            resource.name, resource.author, _state(_state_name(resource)), score, moment(resource.create_time)
        )
    return table


def submission_line(resource: Submission) -> Text:
    """Where a submission is, on one line."""
    graded = sum(result.state == ItemResult.GRADED for result in resource.results)
    return Text.assemble(
        _state(_state_name(resource)),
        f"  {graded}/{len(resource.results)} items graded, ",
        f"{points(resource.score)} of {points(resource.max_score)} points",
        *(f"\n{one.item}: {verdicts.tally(one.progress)}" for one in resource.results if one.progress),
    )


def submission(resource: Submission, asked: Assignment | None = None) -> RenderableType:
    """A submission with its grades as the student sees them; the questions too, given ``asked``."""
    questions = {item.item: item for item in asked.items} if asked is not None else {}
    answers = {answer.item: answer for answer in resource.answers}
    parts: list[RenderableType] = [
        Text.assemble(
            _state(_state_name(resource)),
            "  ",
            (f"{points(resource.score)} of {points(resource.max_score)} points", "bold"),
            (f"  handed in {moment(resource.create_time)} by {resource.author}", "dim"),
        )
    ]
    for result in resource.results:
        parts.append(Text())
        parts.append(item_result(result, answers.get(result.item), questions.get(result.item)))
    return Panel(Group(*parts), title=Text(resource.name), title_align="left")


def item_result(result: ItemResult, answer: Answer | None = None, item: Item | None = None) -> RenderableType:
    """The grade of one item: points, criteria, feedback, flags, and which program says so."""
    parts: list[RenderableType] = []
    if item is not None and item.prompt:
        parts.append(Text(_short(item.prompt), style="italic"))
    if answer is not None:
        parts.append(Text.assemble(("answer  ", "dim"), _short(answer_text(answer))))
    if result.HasField("grade"):
        parts += _grade_parts(result.grade, {c.criterion: c.description for c in _criteria(item)})
    else:
        parts.append(Text.assemble(_state(ItemResult.State.Name(result.state)), "  no grade yet"))
    if result.progress:
        parts += [Text(verdicts.tally(result.progress)), verdicts.tests(result.progress)]
    title = Text.assemble(
        (result.item, "bold"), f"  generation {result.generation}" * (result.generation > 1)
    )
    return Panel(Group(*parts), title=title, title_align="left", border_style="dim")


def queues(resources: Iterable[Queue]) -> Table:
    """The queues, one a line."""
    table = columns(
        "queue", "state", "ready", "delayed", "leased", "oldest", "graders", "p50", "p90", "work ahead"
    )
    for queue in resources:
        counts = (queue.ready, queue.delayed, queue.leased)
        table.add_row(
            queue.queue,
            _queue_state(queue),
            *map(str, counts),
            _seconds(queue.oldest_age) if queue.ready else "-",
            str(queue.workers),
            _seconds(queue.service_p50) if queue.HasField("service_p50") else "-",
            _seconds(queue.service_p90) if queue.HasField("service_p90") else "-",
            _seconds(queue.predicted_work) if queue.HasField("predicted_work") else "-",
        )
    return table


def estimate(promised: GradingEstimate) -> str:
    """When to expect the grades of a submission."""
    return (
        f"{promised.position} tasks ahead; graded within {_seconds(promised.p50)} in half of the cases, "
        f"within {_seconds(promised.p90)} in nine of ten"
    )


def holds(counted: Conservation) -> bool:
    """Whether every accepted task is in exactly one place, and Redis has what is open."""
    return counted.balanced and counted.open == counted.queued + counted.waiting + counted.leased


def conservation(counted: Conservation) -> RenderableType:
    """Where every accepted task is, and whether the sums are right."""
    table = columns("where", "tasks", "")
    for where, tasks, note in (
        ("accepted", counted.accepted, "says Postgres, as do the next four"),
        ("= open", counted.open, "still to be graded"),
        ("+ dead letters", counted.dead_lettered, "given up"),
        ("+ cancelled", counted.cancelled, ""),
        ("+ graded", counted.graded, ""),
        ("queued", counted.queued, "says Redis, as do the next two: together what is open"),
        ("+ waiting", counted.waiting, "for their time or for a retry"),
        ("+ leased", counted.leased, "being graded"),
    ):
        table.add_row(where, str(tasks), Text(note, style="dim"))
    places = counted.open + counted.dead_lettered + counted.cancelled + counted.graded
    queued = counted.queued + counted.waiting + counted.leased
    verdict = Text("conserved", style="green") if holds(counted) else Text("not conserved", style="red")
    if not counted.balanced:
        verdict.append(f": {counted.accepted} accepted, {places} found", style="")
    elif queued != counted.open:
        verdict.append(f": {counted.open} open, {queued} in Redis", style="")
    sweep = f"last sweep {moment(counted.sweep_time)}: {counted.missing} missing, {counted.orphaned} orphaned"
    return Group(table, verdict, Text(sweep, style="dim"))


def dead_letters(resources: Iterable[DeadLetter]) -> Table:
    """Tasks that were given up."""
    table = columns("submission", "item", "queue", "attempts", "given up", "reason")
    for letter in resources:
        table.add_row(
            letter.submission,
            letter.item,
            letter.queue,
            str(letter.attempts),
            moment(letter.create_time),
            Text(letter.reason),
        )
    return table


def health(report: HealthReport) -> RenderableType:
    """The health of the suite."""
    table = columns("check", "status", "took")
    for check in report.checks:
        took = check.latency.ToTimedelta() / dt.timedelta(milliseconds=1)
        table.add_row(check.name, _health(check.status), f"{took:.1f} ms")
    return Group(Text.assemble("the suite is ", _health(report.status)), table)


def _grade_parts(grade: Grade, descriptions: Mapping[str, str]) -> list[RenderableType]:
    fraction = grade.score / grade.max_score if grade.max_score else 0.0
    style = "green" if fraction >= _GOOD else "yellow" if fraction >= _FAIR else "red"
    parts: list[RenderableType] = [
        Text.assemble(
            ("score   ", "dim"),
            (f"{points(grade.score)} of {points(grade.max_score)} points  ", f"bold {style}"),
            ("█" * round(20 * fraction), style),
            ("░" * (20 - round(20 * fraction)), "dim"),
        )
    ]
    if grade.feedback:
        parts.append(Text.assemble(("says    ", "dim"), grade.feedback))
    if grade.flags:
        parts.append(Text.assemble(("flags   ", "dim"), (", ".join(grade.flags), "yellow")))
    parts += [
        Text.assemble(("file    ", "dim"), artifact.title, ("  ", ""), artifact.upload)
        for artifact in grade.artifacts
    ]
    if grade.needs_review:
        parts.append(Text.assemble(("review  ", "dim"), ("a person should look at this grade", "yellow")))
    if grade.tests:
        parts.append(verdicts.tests(grade.tests))
    told = {test.test for test in grade.tests}
    shown = [one for one in grade.criteria if one.criterion not in told or one.provenance.fallback]
    if not shown:  # each test is a criterion, and the table of tests says more
        made_by = verdicts.provenance(grade.criteria[0].provenance) if grade.criteria else Text()
        return [*parts, Text.assemble(("by      ", "dim"), made_by)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("criterion", "points", "why", "sure", "by"):
        table.add_column(heading, header_style="dim", no_wrap=heading == "points")
    for score in shown:
        table.add_row(*_criterion_row(score, descriptions))
    return [*parts, table]


def _criterion_row(score: CriterionScore, descriptions: Mapping[str, str]) -> tuple[str | Text, ...]:
    why = score.feedback or descriptions.get(score.criterion, "")
    sure = f"{score.confidence:.0%}" if score.confidence else "-"
    earned = f"{points(score.score)} / {points(score.max_score)}"
    words = Text(why)
    if score.evidence:
        words.append("\n" if why else "").append_text(verdicts.quotes(score.evidence))
    return score.criterion, earned, words, sure, verdicts.provenance(score.provenance)


def _criteria(item: Item | None) -> Iterable[FreeTextSpec.Criterion]:
    return (*item.free_text.criteria, *item.custom.criteria) if item is not None else ()


def _kind(item: Item) -> str:
    kind = (item.WhichOneof("grader") or "?").replace("_", "-")
    if item.HasField("code"):
        return f"{kind} ({CodeSpec.Language.Name(item.code.language).lower()})"
    if item.HasField("custom"):
        return f"{kind} ({item.custom.kind})"
    return f"{kind} (llm)" if item.free_text.HasField("llm") else kind


def _facts(resource: Assignment) -> str:
    facts = [f"revision {resource.revision_id}", f"updated {moment(resource.update_time)}"]
    if resource.HasField("close_time"):
        facts.append(f"closes {moment(resource.close_time)}")
    return " · ".join(facts)


def columns(*headings: str) -> Table:
    """An empty table with these headings."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _state_name(resource: Submission) -> str:
    return Submission.State.Name(resource.state)


def _queue_state(queue: Queue) -> Text:
    return Text(Queue.State.Name(queue.state), style="" if queue.state == Queue.RUNNING else "yellow")


def _seconds(duration: Duration) -> str:
    seconds = duration.ToTimedelta().total_seconds()
    return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{seconds * 1000:.0f} ms"


def _state(name: str) -> Text:
    return Text(name, style=_STATE_STYLES.get(name, ""))


def _health(status: str) -> Text:
    return Text(status, style="green" if status == "healthy" else "red")


def moment(time: Timestamp) -> str:
    """A time where the reader is, or "-" for none."""
    if not time.seconds:
        return "-"
    return time.ToDatetime(dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
