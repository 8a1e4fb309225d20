"""``cinnabar submit``, ``watch``, ``list``, ``show``, ``cancel``"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import click
from rich.live import Live
from rich.text import Text

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.files import Times, read_handed_in, requests_of
from cinnabar_client.cli.moments import MOMENT
from cinnabar_client.cli.uploads import uploaded
from cinnabar_client.convert import answers_to, assignment_name
from cinnabar_client.errors import ApiError
from cinnabar_client.progress import Counts
from cinnabar_common.names import AssignmentName, SubmissionName

_PRIORITIES = {"low": Submission.LOW, "normal": Submission.NORMAL, "high": Submission.HIGH}


@click.command()
@click.argument("target", metavar="[COURSE/ASSIGNMENT]", required=False)
@click.option(
    "--answer",
    "answers",
    multiple=True,
    metavar="ITEM=ANSWER",
    help="One for each item: a text, the ids of the chosen options with commas, or a number and its unit.",
)
@click.option(
    "--answer-file",
    "files",
    multiple=True,
    metavar="ITEM=PATH",
    help="The answer to a text item from a file, which is uploaded first; to a code item from a source, "
    "a folder of sources, or a .zip.",
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Hand in many: a JSON object a line, with author and answers.",
)
@click.option("--author", default="", help="Id of the student; by default the caller.")
@click.option("--request-id", default="", help="Makes repeating the same hand-in safe.")
@click.option("--priority", type=click.Choice(sorted(_PRIORITIES)), default="normal", show_default=True)
@click.option(
    "--grade-after",
    type=MOMENT,
    help="Do not grade before: a time with its zone, or from now on, as 90s, 15m, 2h or 1d.",
)
@click.option("--grade-by", type=MOMENT, help="Give up what has no grade by then; the same forms.")
@click.option("--wait", is_flag=True, help="Wait until everything is graded.")
@click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="How long --wait waits at most.",
)
@api_command
async def submit(
    session: Session,
    target: str | None,
    answers: Sequence[str],
    files: Sequence[str],
    file: Path | None,
    author: str,
    request_id: str,
    priority: str,
    grade_after: dt.datetime | None,
    grade_by: dt.datetime | None,
    wait: bool,
    wait_seconds: float,
) -> int:
    """Hand in one submission (--answer), or a file of many (--file)."""
    name = assignment_name(target) if target else None
    if (file is None) == (not (answers or files)):
        raise click.UsageError("give either --answer or --answer-file, once for each item, or --file")
    if file is not None:
        if author or request_id:
            raise click.UsageError("with --file, author and request_id stand in its lines")
        times = (grade_after, grade_by)
        return await _submit_file(session, file, name, times, wait_seconds if wait else None)
    if name is None:
        raise click.UsageError("COURSE/ASSIGNMENT is missing")
    asked = await session.client.get_assignment(str(name))
    given, paths = _pairs(answers, "--answer"), _pairs(files, "--answer-file")
    handed_in = answers_to(asked, given) + await uploaded(session, asked, given, paths, author)
    made = await session.client.submit(
        str(name),
        handed_in,
        author=author,
        request_id=request_id,
        priority=_PRIORITIES[priority],
        grade_after=grade_after,
        grade_by=grade_by,
    )
    if wait:
        made = await session.client.wait_graded(made.name, timeout=wait_seconds)
        session.output.result(made, render.submission(made, asked))
    else:
        session.output.result(made, Text.assemble((made.name, "bold"), " is accepted"))
        if made.HasField("estimate"):
            session.output.view(Text(render.estimate(made.estimate)))
    return int(made.state == Submission.FAILED)


def _pairs(answers: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for answer in answers:
        item, equals, value = answer.partition("=")
        if not equals or item in pairs:
            form = "ITEM=ANSWER" if option == "--answer" else "ITEM=PATH"
            raise click.UsageError(f"{option} {answer!r} must be {form}, once for each item")
        pairs[item] = value
    return pairs


async def _submit_file(
    session: Session, file: Path, name: AssignmentName | None, times: Times, wait_seconds: float | None
) -> int:
    client, output = session.client, session.output
    handed_in, left_out = read_handed_in(file, name)
    requests = await requests_of(file, handed_in, client.get_assignment, times)
    if left_out:
        output.notes.print(f"{left_out} lines are for other assignments and were left out")
    if not requests:
        raise click.UsageError(f"{file.name} holds nothing to hand in")
    accepted: list[str] = []
    refused = 0
    totals: dict[str, int | None] = {"accepted": len(requests)}
    began = time.monotonic()
    with Counts(output.notes, totals | ({"graded": None} if wait_seconds is not None else {})) as counts:
        async with aclosing(client.submit_many(requests)) as results:
            async for result in results:
                if result.submission is not None:
                    accepted.append(result.submission.name)
                    counts.advance("accepted")
                    output.line({"index": result.index, "submission": render.data(result.submission)})
                elif result.error is not None:
                    refused += 1
                    line = handed_in[result.index].line
                    output.line({"index": result.index, "line": line, "error": result.error.to_json()})
                    output.notes.print(_refused(f"{file.name}:{line}", result.error))
        accepted_seconds = time.monotonic() - began
        states: dict[str, int] = {}
        if wait_seconds is not None:
            counts.total("graded", len(accepted))
            states = await _wait_all(session, accepted, wait_seconds, counts)
    output.view(Text(f"{len(accepted)} accepted in {accepted_seconds:.1f} s, {refused} refused"))
    if states:
        words = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
        output.view(Text(f"{words} after {time.monotonic() - began:.1f} s"))
    return int(refused > 0 or "FAILED" in states)


async def _wait_all(session: Session, names: Sequence[str], seconds: float, counts: Counts) -> dict[str, int]:
    states: dict[str, int] = {}
    async with asyncio.timeout(seconds), aclosing(session.client.wait_all_graded(names)) as finals:
        async for final in finals:
            state = Submission.State.Name(final.state)
            states[state] = states.get(state, 0) + 1
            counts.advance("graded")
            session.output.line({"submission": render.data(final)})
    return states


def _refused(place: str, error: ApiError) -> Text:
    rules = "; ".join(f"{violation.field}: {violation.rule}" for violation in error.violations)
    return Text.assemble((f"{place} refused: ", "red"), f"{error.reason} {rules or error.message}")


@click.command()
@click.argument("name")
@api_command
async def watch(session: Session, name: str) -> int:
    """Follow a submission until it is graded."""
    final = Submission()
    asked = await _asked(session, name) if not session.output.as_json else None
    live = Live(console=session.output.notes, transient=True, auto_refresh=False)
    async with aclosing(session.client.watch(name)) as states:
        with live:
            async for final in states:
                session.output.line(final)
                live.update(render.submission_line(final), refresh=True)
    session.output.view(render.submission(final, asked))
    return int(final.state == Submission.FAILED)


@click.command("list")
@click.argument("target", metavar="COURSE/ASSIGNMENT")
@click.option("--author", default="", help="Only of this student.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="At most so many.")
@api_command
async def list_(session: Session, target: str, author: str, limit: int | None) -> None:
    """List the submissions of an assignment, newest first."""
    found: list[Submission] = []
    resources = session.client.list_submissions(str(assignment_name(target)), author=author)
    try:
        async with aclosing(resources):
            async for resource in resources:
                found.append(resource)
                session.output.line(resource)
                if len(found) == limit:
                    break
    except ApiError:
        if found:  # a part of the list is missing: the rest is shown before that is said
            session.output.view(render.submissions(found))
        raise
    session.output.view(render.submissions(found))


@click.command()
@click.argument("name")
@api_command
async def show(session: Session, name: str) -> None:
    """Show a submission with its grades."""
    found = await session.client.get_submission(name)
    asked = await _asked(session, name) if not session.output.as_json else None
    session.output.result(found, render.submission(found, asked))


@click.command()
@click.argument("name")
@api_command
async def cancel(session: Session, name: str) -> None:
    """Cancel what is not graded yet of a submission."""
    found = await session.client.cancel(name)
    session.output.result(found, render.submission_line(found))


async def _asked(session: Session, name: str) -> Assignment | None:
    parsed = SubmissionName.parse(name)
    return await session.client.get_assignment(str(parsed.parent)) if parsed is not None else None
