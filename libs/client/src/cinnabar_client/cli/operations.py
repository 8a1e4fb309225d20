"""``cinnabar queues``, ``dead-letters …``, ``health``"""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command

_AT_ONCE = 1000  # tasks in one redrive call


@click.command()
@api_command
async def queues(session: Session) -> None:
    """Show what waits in the queues."""
    found = await session.client.queues()
    session.output.document({"queues": [render.data(queue) for queue in found]}, render.queues(found))


@click.group("dead-letters")
def dead_letters() -> None:
    """Tasks that were given up."""


@dead_letters.command("list")
@click.option("--queue", default="", help="Only of this queue.")
@api_command
async def list_(session: Session, queue: str) -> None:
    """List them, and why they were given up."""
    found = [letter async for letter in session.client.dead_letters(queue=queue)]
    for letter in found:
        session.output.line(letter)
    session.output.view(render.dead_letters(found))


@dead_letters.command("redrive")
@click.argument("tasks", metavar="SUBMISSION/ITEM", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--queue", default="", help="With --all: only of this queue.")
@api_command
async def redrive(session: Session, tasks: Sequence[str], everything: bool, queue: str) -> None:
    """Give dead letters another chance. SUBMISSION is the whole name."""
    if everything == bool(tasks):
        raise click.UsageError("name the tasks, or say --all")
    pairs = [_task(task) for task in tasks]
    if everything:
        pairs = [
            (letter.submission, letter.item) async for letter in session.client.dead_letters(queue=queue)
        ]
    redriven = 0
    for start in range(0, len(pairs), _AT_ONCE):
        redriven += await session.client.redrive(pairs[start : start + _AT_ONCE])
    session.output.document({"redriven": redriven}, Text(f"{redriven} queued again"))


@click.command()
@api_command
async def health(session: Session) -> int:
    """Show whether the suite is healthy; exit code 1 when it is not."""
    report = await session.client.health()
    session.output.result(report, render.health(report))
    return int(report.status != "healthy")


def _task(text: str) -> tuple[str, str]:
    submission, slash, item = text.rpartition("/")
    if not slash or not submission or not item:
        raise click.UsageError(f"{text!r} is not SUBMISSION/ITEM")
    return submission, item
