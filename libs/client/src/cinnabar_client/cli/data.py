"""``cinnabar export``, ``cinnabar statistics``, ``cinnabar ops erase`` and ``ops erasure``"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import click
from rich.table import Table

from cinnabar.gateway.v1 import assignment_service_pb2 as assignments_pb
from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.operations import ops
from cinnabar_client.convert import assignment_name
from cinnabar_client.data import ExportFormat

_POLL_SECONDS = 0.2
_BARS = " ▁▂▃▄▅▆▇█"


@click.command()
@click.argument("name", metavar="COURSE/ASSIGNMENT")
@api_command
async def statistics(session: Session, name: str) -> None:
    """Show the grades of an assignment in numbers: how many, mean, deviation, by share of the points."""
    found = await session.client.statistics(str(assignment_name(name)))
    session.output.result(found, _statistics(found))


def _statistics(found: assignments_pb.AssignmentStatistics) -> Table:
    as_of = found.as_of_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    missing = f"; without {', '.join(found.unreachable)}" if found.unreachable else ""
    table = Table(
        "", "graded", "mean", "deviation", "0 … 1 of the points", title=f"As of {as_of} UTC{missing}"
    )
    rows = [("submissions", found.submissions)]
    for item in found.items:
        rows.append((item.item, item.scores))
        rows += [(f"  {one.criterion}", one.scores) for one in item.criteria]
    for label, scores in rows:
        table.add_row(
            label,
            str(scores.count),
            f"{scores.mean:.4g}" if scores.count else "",
            f"{scores.standard_deviation:.4g}" if scores.count else "",
            _bars(scores.histogram),
        )
    return table


def _bars(histogram: Sequence[int]) -> str:
    most = max(histogram, default=0)
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in histogram) if most else ""


@ops.command()
@click.argument("student")
@click.option("--reason", required=True, help="Why, for the proof; must not name the student.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait until it is done, at most so long.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")  # fmt: skip
@api_command
async def erase(session: Session, student: str, reason: str, wait_seconds: float, yes: bool) -> int:
    """Erase everything about STUDENT: submissions, grades, files, names in the audit. For good.

    The exit code is 1 when it is not done yet.
    """
    if not yes:
        click.confirm(f"Erase everything about {student}?", abort=True, err=True)
    found = await session.client.erase_student(student, reason=reason)
    deadline = time.monotonic() + wait_seconds
    while found.state != operations_pb.Erasure.ERASED and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        found = await session.client.get_erasure(found.name)
    session.output.result(found, _erasure(found))
    return int(found.state != operations_pb.Erasure.ERASED)


@ops.command()
@click.argument("name", metavar="erasures/ERASURE")
@api_command
async def erasure(session: Session, name: str) -> None:
    """Show the proof of an erasure, or how far it is."""
    found = await session.client.get_erasure(name)
    session.output.result(found, _erasure(found))


def _erasure(found: operations_pb.Erasure) -> Table:
    table = Table("erasure", found.name)
    for label, value in render.data(found).items():
        if label != "name":
            table.add_row(label, str(value))
    return table


@click.command()
@click.argument("name", metavar="COURSE/ASSIGNMENT")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "gradescope"]),
    default="csv",
    show_default=True,
    help="A table, or a line of JSON for each submission with Gradescope's results.json in it.",
)
@click.option("--latest-only", is_flag=True, help="Only the newest submission of each student.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; it is there only when it is complete. Else to stdout.",
)  # fmt: skip
@api_command
async def export(
    session: Session, name: str, form: ExportFormat, latest_only: bool, output: Path | None
) -> None:
    """Write the grades of an assignment to a file."""
    full_name = str(assignment_name(name))
    if output is None:
        await _write(session, full_name, form, latest_only, sys.stdout.buffer)
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            await _write(session, full_name, form, latest_only, file)
        part.replace(output)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


async def _write(session: Session, name: str, form: ExportFormat, latest_only: bool, file: BinaryIO) -> None:
    async with aclosing(session.client.export_grades(name, form=form, latest_only=latest_only)) as parts:
        async for part in parts:
            file.write(part)
    file.flush()
