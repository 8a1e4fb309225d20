"""``cinnabar override``, ``gradings``, ``audit`` and ``ops audit verify``"""

from __future__ import annotations

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cinnabar.gateway.v1.operations_service_pb2 import VerifyAuditResponse
from cinnabar.gateway.v1.submission_service_pb2 import AuditEvent, Grading
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.operations import ops


@click.command()
@click.argument("name")
@click.argument("item")
@click.argument("score", type=float)
@click.option("--reason", required=True, help="Why, for the audit; students do not see it.")
@click.option("--feedback", default="", help="What the student reads.")
@click.option("--etag", default="", help="Only if the submission still has this etag (see show --json).")
@api_command
async def override(
    session: Session, name: str, item: str, score: float, reason: str, feedback: str, etag: str
) -> None:
    """Give an item of a submission a grade by hand."""
    found = await session.client.override_grade(
        name, item, score, reason=reason, feedback=feedback, etag=etag
    )
    session.output.result(found, render.submission(found))


@click.command()
@click.argument("name")
@api_command
async def gradings(session: Session, name: str) -> None:
    """Show all grades that a submission ever had."""
    found: list[Grading] = []
    async for grading in session.client.gradings(name):
        found.append(grading)
        session.output.line(grading)
    session.output.view(_gradings(found))


def _gradings(found: list[Grading]) -> Table:
    table = render.columns("item", "generation", "points", "kind", "by", "reason", "when")
    for one in found:
        grade = f"{render.points(one.grade.score)} of {render.points(one.grade.max_score)}"
        table.add_row(
            one.item,
            Text(str(one.generation), style="bold" if one.current else "dim"),
            grade,
            Grading.Kind.Name(one.kind).lower(),
            one.actor,
            one.reason,
            render.moment(one.create_time),
        )
    return table


@click.command()
@click.argument("name")
@api_command
async def audit(session: Session, name: str) -> None:
    """Show who did what to a submission."""
    found: list[AuditEvent] = []
    async for event in session.client.audit_events(name):
        found.append(event)
        session.output.line(event)
    session.output.view(_events(found))


def _events(found: list[AuditEvent]) -> Table:
    table = render.columns("when", "who", "what", "item", "generation", "detail", "sealed")
    for one in found:
        generation, sealed = str(one.generation), "yes" if one.sealed else "not yet"
        when = render.moment(one.time)
        table.add_row(when, one.actor, one.action, one.item, generation, Text(one.detail), sealed)
    return table


@ops.group("audit")
def ops_audit() -> None:
    """The log of all changes, and the seals over it."""


@ops_audit.command()
@api_command
async def verify(session: Session) -> int:
    """Compute all seals again. The exit code is 1 when the audit was tampered with.

    Keep the heads that it prints elsewhere: who has them notices a chain that was made anew.
    """
    verdict = await session.client.verify_audit()
    session.output.result(verdict, _verdict(verdict))
    return int(bool(verdict.breaks))


def _verdict(verdict: VerifyAuditResponse) -> Group:
    lines = [
        Text(
            f"{verdict.seals} seals over {verdict.events} events, {verdict.redacted} of them erased; "
            f"{verdict.unsealed} not sealed yet"
        )
    ]
    lines += [
        Text(f"shard {one.shard}, seal {one.seal}: {one.problem}", style="red") for one in verdict.breaks
    ]
    lines += [
        Text(f"shard {shard} ends with {head.hex() or 'nothing'}") for shard, head in enumerate(verdict.heads)
    ]
    lines.append(Text("tampered with", style="bold red") if verdict.breaks else Text("holds", style="green"))
    return Group(*lines)
