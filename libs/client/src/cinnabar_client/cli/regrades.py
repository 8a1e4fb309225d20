"""``cinnabar regrade``"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cinnabar.gateway.v1.regrade_service_pb2 import Regrade, RegradeReport
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.moments import MOMENT
from cinnabar_client.convert import assignment_name

_REASON = click.option("--reason", required=True, help="Why, for the audit; students do not see it.")
_ITEMS = click.option("--item", "items", multiple=True, help="Only this item; may be given again.")
_REVISION = click.option("--revision", default="", help="Grade by this revision of the assignment.")
_WAIT = click.option("--wait", is_flag=True, help="Wait until nothing of it is under way.")
_WAIT_SECONDS = click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="How long --wait waits at most.",
)


@click.group()
def regrade() -> None:
    """Grade what is graded again: one submission, or many, at first beside the grades that count."""


@regrade.command()
@click.argument("name")
@_REASON
@_ITEMS
@_REVISION
@click.option("--etag", default="", help="Only if the submission still has this etag (see show --json).")
@api_command
async def submission(
    session: Session, name: str, reason: str, items: Sequence[str], revision: str, etag: str
) -> None:
    """Grade one submission again; its grades count until the new ones come."""
    found = await session.client.regrade_submission(
        name, reason=reason, items=items, revision_id=revision, etag=etag
    )
    session.output.result(found, render.submission(found))


@regrade.command()
@click.argument("target", metavar="COURSE/ASSIGNMENT")
@_REASON
@click.option("--shadow", is_flag=True, help="Compare first: nothing counts before it is promoted.")
@_REVISION
@click.option("--author", "authors", multiple=True, help="Only this student; may be given again.")
@_ITEMS
@click.option("--created-after", type=MOMENT, help="Only submissions from this time on.")
@click.option("--created-before", type=MOMENT, help="Only submissions before this time.")
@click.option(
    "--score-below", type=click.FloatRange(0, 1), help="Only grades below this share of the item's points."
)
@_WAIT
@_WAIT_SECONDS
@api_command
async def create(
    session: Session,
    target: str,
    reason: str,
    shadow: bool,
    revision: str,
    authors: Sequence[str],
    items: Sequence[str],
    created_after: dt.datetime | None,
    created_before: dt.datetime | None,
    score_below: float | None,
    wait: bool,
    wait_seconds: float,
) -> None:
    """Grade an assignment again: all of it, or what the options take."""
    made = await session.client.create_regrade(
        str(assignment_name(target)),
        reason=reason,
        shadow=shadow,
        revision_id=revision,
        authors=authors,
        items=items,
        created_after=created_after,
        created_before=created_before,
        score_below=score_below,
    )
    await _show(session, made, wait_seconds if wait else None)


@regrade.command()
@click.argument("name")
@_WAIT
@_WAIT_SECONDS
@api_command
async def show(session: Session, name: str, wait: bool, wait_seconds: float) -> None:
    """Show how far a regrade is."""
    await _show(session, await session.client.get_regrade(name), wait_seconds if wait else None)


@regrade.command("list")
@click.argument("target", metavar="COURSE/ASSIGNMENT")
@api_command
async def list_(session: Session, target: str) -> None:
    """List the regrades of an assignment, newest first."""
    found: list[Regrade] = []
    async for one in session.client.list_regrades(str(assignment_name(target))):
        found.append(one)
        session.output.line(one)
    session.output.view(_table(found))


@regrade.command()
@click.argument("name")
@click.option(
    "--pass-share",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="An item is passed from this share of its points on.",
)
@api_command
async def report(session: Session, name: str, pass_share: float) -> None:
    """Show what a regrade changes, or would change."""
    found = await session.client.regrade_report(name, pass_share=pass_share)
    session.output.result(found, _report(found))


@regrade.command()
@click.argument("name")
@_WAIT
@_WAIT_SECONDS
@api_command
async def promote(session: Session, name: str, wait: bool, wait_seconds: float) -> None:
    """Make the grades of a shadow count."""
    await _show(session, await session.client.promote_regrade(name), wait_seconds if wait else None)


@regrade.command()
@click.argument("name")
@api_command
async def discard(session: Session, name: str) -> None:
    """Give a regrade up: what is open is cancelled, and a shadow never counts."""
    await _show(session, await session.client.discard_regrade(name), None)


async def _show(session: Session, found: Regrade, wait_seconds: float | None) -> None:
    if wait_seconds is not None:
        found = await session.client.wait_regrade(found.name, timeout=wait_seconds)
    session.output.result(found, _table([found]))


def _table(found: Sequence[Regrade]) -> Table:
    table = render.columns(
        *(
            "regrade",
            "state",
            "opened",
            "graded",
            "failed",
            "skipped",
            "promoted",
            "overtaken",
            "by",
            "reason",
        )
    )
    for one in found:
        state = Regrade.State.Name(one.state).lower() + (" shadow" if one.shadow else "")
        counts = (one.opened, one.graded, one.failed, one.skipped, one.promoted, one.overtaken)
        table.add_row(one.name, state, *map(str, counts), one.actor, one.reason)
    return table


def _report(found: RegradeReport) -> Group:
    lines = Text(
        f"{found.compared} compared: {found.raised} higher, {found.lowered} lower, "
        f"{found.unchanged} the same; {found.failed_to_passed} now passed, "
        f"{found.passed_to_failed} now failed"
    )
    deltas = render.columns("item", "criterion", "compared", "mean", "rms", "-1 … 0 … 1")
    for delta in found.deltas:
        deltas.add_row(
            *(delta.item, delta.criterion, str(delta.compared)),
            *(f"{delta.mean_delta:+.3f}", f"{delta.rms_delta:.3f}", _bars(delta.histogram)),
        )
    largest = render.columns("submission", "item", "before", "after", "of")
    for change in found.largest:
        scores = (change.old_score, change.new_score, change.max_score)
        largest.add_row(change.submission, change.item, *map(render.points, scores))
    return Group(lines, deltas, largest)


def _bars(histogram: Sequence[int]) -> str:
    """One character for each bin, the taller the more."""
    most = max(histogram, default=0)
    return "".join("·" if not count else "▁▂▃▄▅▆▇█"[(count * 8 - 1) // most] for count in histogram)
