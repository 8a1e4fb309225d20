"""``cinnabar upload``, ``download``"""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from pathlib import Path

import click
from rich.text import Text

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.convert import assignment_name
from cinnabar_client.programs import Program, read_program

_DEFAULT_TYPE = "text/plain"


def content_type_of(path: str) -> str:
    """The media type that the name of a file suggests."""
    return mimetypes.guess_type(path)[0] or _DEFAULT_TYPE


async def uploaded(
    session: Session, asked: Assignment, given: Mapping[str, object], paths: Mapping[str, str], author: str
) -> list[Answer]:
    """The answers from files; ``given`` are answers that are there already.

    Small programs go into their answers as they are; everything else is uploaded.
    """
    items = {item.item: item for item in asked.items if item.item not in given}
    programs: dict[str, Program] = {}
    for item, path in paths.items():
        if item not in items:
            raise click.UsageError(f"--answer-file: {item} is no item of {asked.name}, or has an answer")
        if items[item].HasField("code"):
            programs[item] = await asyncio.to_thread(_read_program, item, path)
        else:
            content = await asyncio.to_thread(_read, path)
            programs[item] = Program(content=content, content_type=content_type_of(path))
    answers: list[Answer] = []
    for item, program in programs.items():
        if program.answer is not None:
            answers.append(program.answer)
            continue
        made = await session.client.upload(
            asked.name, item, program.content, content_type=program.content_type, author=author
        )
        answers.append(Answer(item=item, file=Answer.File(upload=made.name)))
    return answers


def _read_program(item: str, path: str) -> Program:
    try:
        return read_program(item, Path(path))
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


@click.command()
@click.argument("target", metavar="COURSE/ASSIGNMENT")
@click.argument("item")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--author", default="", help="Id of the student; by default the caller.")
@click.option("--content-type", default="", help="Media type; by default what the name of the file suggests.")
@api_command
async def upload(
    session: Session, target: str, item: str, file: Path, author: str, content_type: str
) -> None:
    """Upload the answer to an item, to hand it in soon."""
    made = await session.client.upload(
        str(assignment_name(target)),
        item,
        await asyncio.to_thread(_read, str(file)),
        content_type=content_type or content_type_of(file.name),
        author=author,
    )
    # What is left of the form is of no use, and whoever has it may upload: it is not printed.
    made.ClearField("url")
    made.ClearField("fields")
    session.output.result(made, Text.assemble((made.name, "bold"), " is uploaded"))


@click.command()
@click.argument("name")
@click.option(
    "--output",
    "target",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default="-",
    help="Where to; by default standard output.",
)
@api_command
async def download(session: Session, name: str, target: Path) -> None:
    """Read an uploaded answer, or an artifact of a grader."""
    content = await session.client.download(name)
    with click.open_file(str(target), "wb") as sink:
        sink.write(content)
