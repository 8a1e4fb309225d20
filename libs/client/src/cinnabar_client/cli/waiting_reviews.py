"""``cinnabar reviews``"""

from __future__ import annotations

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cinnabar.gateway.v1.review_service_pb2 import Review
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.convert import assignment_name
from cinnabar_client.errors import ApiError
from cinnabar_client.waiting_reviews import EVERYWHERE


@click.group()
def reviews() -> None:
    """Grades that a person should look at, because their grader was not sure of them.

    End one with `accept`, or give a grade of your own with `cinnabar override`.
    """


@reviews.command("list")
@click.argument("target", metavar="[COURSE[/ASSIGNMENT]]", default="")
@click.option("--flag", default="", help="Only those with this flag.")
@api_command
async def list_(session: Session, target: str, flag: str) -> None:
    """List what waits, oldest first: of an assignment, of a course, or everything."""
    found: list[Review] = []
    try:
        async for review in session.client.reviews(_parent(target), flag=flag):
            found.append(review)
            session.output.line(review)
    except ApiError:
        if found:  # a shard could not be asked: the others' come first
            session.output.view(_table(found))
        raise
    session.output.view(_table(found))


def _parent(target: str) -> str:
    if not target:
        return EVERYWHERE
    return str(assignment_name(target)) if "/" in target else f"courses/{target}/assignments/-"


def _table(found: list[Review]) -> Table:
    table = render.columns("submission", "item", "points", "flags", "author", "waits since")
    for one in found:
        table.add_row(
            one.submission,
            one.item,
            _points(one),
            Text(", ".join(one.flags)),
            one.author,
            render.moment(one.create_time),
        )
    return table


def _points(one: Review) -> str:
    return f"{render.points(one.score)} of {render.points(one.max_score)}"


@reviews.command()
@click.argument("name")
@click.argument("item")
@click.option("--comment", default="", help="What you have to say, for the audit; students do not see it.")
@click.option("--etag", default="", help="Only if the submission still has this etag (see show --json).")
@api_command
async def accept(session: Session, name: str, item: str, comment: str, etag: str) -> None:
    """Say that the grade of an item is right as it is."""
    done = await session.client.accept_review(name, item, comment=comment, etag=etag)
    head = Text.assemble((f"{done.item}: ", "bold"), f"{_points(done)} accepted")
    session.output.result(done, Group(head, Text(", ".join(done.flags), style="dim")))
