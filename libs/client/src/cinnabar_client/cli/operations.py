"""``cinnabar ops …`` and ``cinnabar health``"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing

import click
from rich.text import Text

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.models import models
from cinnabar_client.cli.shards import shards
from cinnabar_client.client import MAX_REDRIVE, RefusedRedrive
from cinnabar_client.convert import course_or_assignment
from cinnabar_client.errors import ApiError

_POLL_SECONDS = 0.25


@click.group("ops")
def ops() -> None:
    """For operators: queues, dead letters, shards, models, and whether everything is accounted for."""


ops.add_command(shards)
ops.add_command(models)


@ops.command()
@api_command
async def queues(session: Session) -> None:
    """Show the queues: what they do, what waits in them, how long it takes."""
    found = await session.client.queues()
    session.output.document({"queues": [render.data(queue) for queue in found]}, render.queues(found))


@ops.command()
@click.argument("queue")
@api_command
async def pause(session: Session, queue: str) -> None:
    """Let tasks wait; submissions are still accepted."""
    _show(session, await session.client.pause_queue(queue))


@ops.command()
@click.argument("queue")
@api_command
async def resume(session: Session, queue: str) -> None:
    """End a pause or a drain."""
    _show(session, await session.client.resume_queue(queue))


@ops.command()
@click.argument("queue")
@api_command
async def drain(session: Session, queue: str) -> None:
    """Grade what is there, and refuse new submissions that need the queue."""
    _show(session, await session.client.drain_queue(queue))


def _show(session: Session, queue: pb.Queue) -> None:
    session.output.result(queue, render.queues([queue]))


def _filter_options(command: click.Command) -> click.Command:
    for option in (
        click.Option(["--reason"], default="", help="Only those whose reason contains this."),
        click.Option(
            ["--assignment"],
            default="",
            metavar="COURSE[/ASSIGNMENT]",
            help="Only of this assignment or course.",
        ),
        click.Option(["--queue"], default="", help="Only of this queue."),
    ):
        command.params.insert(0, option)
    return command


@_filter_options
@ops.command("dead-letters")
@api_command
async def dead_letters(session: Session, queue: str, assignment: str, reason: str) -> None:
    """List the tasks that were given up, and why."""
    found: list[pb.DeadLetter] = []
    async for letter in session.client.dead_letters(
        queue=queue, parent=course_or_assignment(assignment), reason=reason
    ):
        found.append(letter)
        session.output.line(letter)
    session.output.view(render.dead_letters(found))


@_filter_options
@ops.command()
@click.argument("tasks", metavar="[SUBMISSION/ITEM]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All there are.")
@api_command
async def redrive(
    session: Session, tasks: Sequence[str], everything: bool, queue: str, assignment: str, reason: str
) -> int:
    """Give dead letters another chance: those named, those of a filter, or --all.

    SUBMISSION is the whole name. The exit code is 1 when some were refused.
    """
    filtered = bool(queue or assignment or reason)
    if bool(tasks) + everything + filtered != 1:
        raise click.UsageError("either name the tasks, or give --queue, --assignment, --reason, or say --all")
    letters = session.client.dead_letters(queue=queue, parent=course_or_assignment(assignment), reason=reason)
    # A filter is walked once: what fails again meanwhile is not redriven for ever.
    source = _each([_task(task) for task in tasks]) if tasks else _named(letters)
    redriven = 0
    refused: list[RefusedRedrive] = []
    async with aclosing(_chunks(source)) as chunks:
        async for chunk in chunks:
            answer = await session.client.redrive(chunk)
            redriven += answer.redriven
            refused += answer.refused
    for refusal in refused:
        words = f"{refusal.submission}/{refusal.item} refused: "
        session.output.notes.print(Text.assemble((words, "red"), refusal.error.message))
    session.output.document(
        {"redriven": redriven, "refused": [refusal.to_json() for refusal in refused]},
        Text(f"{redriven} queued again, {len(refused)} refused"),
    )
    return int(bool(refused))


@ops.command()
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Count again until it holds, at most so long.",
)
@api_command
async def conservation(session: Session, wait_seconds: float) -> int:
    """Count where every accepted task is; exit code 1 when the sum is wrong.

    It holds when accepted = open + dead letters + cancelled + graded, and Redis has what is open. Postgres
    and Redis are not counted in the same instant, so while work flows give it some time with --wait.
    """
    deadline = time.monotonic() + wait_seconds
    while not render.holds(counted := await session.client.conservation()):
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(_POLL_SECONDS)
    holds = render.holds(counted)
    session.output.document(render.data(counted) | {"holds": holds}, render.conservation(counted))
    return int(not holds)


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


async def _each(tasks: Sequence[tuple[str, str]]) -> AsyncGenerator[tuple[str, str]]:
    for task in tasks:
        yield task


async def _named(letters: AsyncIterable[pb.DeadLetter]) -> AsyncGenerator[tuple[str, str]]:
    async for letter in letters:
        yield letter.submission, letter.item


async def _chunks(tasks: AsyncIterable[tuple[str, str]]) -> AsyncGenerator[list[tuple[str, str]]]:
    chunk: list[tuple[str, str]] = []
    incomplete: ApiError | None = None
    try:
        async for task in tasks:
            chunk.append(task)
            if len(chunk) == MAX_REDRIVE:
                yield chunk
                chunk = []
    except ApiError as error:  # what could be listed is worked on all the same
        incomplete = error
    if chunk:
        yield chunk
    if incomplete is not None:
        raise incomplete
