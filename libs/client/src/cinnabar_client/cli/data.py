"""``cinnabar export``"""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import click

from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.convert import assignment_name
from cinnabar_client.data import ExportFormat


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
