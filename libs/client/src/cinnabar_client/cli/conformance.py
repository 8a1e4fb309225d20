"""``cinnabar conformance``"""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import cast

import click
import yaml
from rich.text import Text

from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.conformance import Finding, Subject, examine
from cinnabar_client.conformance.checks import ITEM
from cinnabar_client.conformance.program import Program
from cinnabar_client.convert import answer_to, assignment_from

_SPEC = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("spec", type=_SPEC)
@click.argument("command", nargs=-1, required=True)
@click.option(
    "--grade-seconds", default=60.0, show_default=True, help="How long all grades of a check may take."
)
@click.option(
    "--stop-seconds", default=15.0, show_default=True, help="How long the grader may take to leave."
)
@click.option("--varying", is_flag=True, help="The same answer may earn another score.")
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), help="Where what the grader says goes."
)
@api_command
async def conformance(
    session: Session,
    spec: Path,
    command: tuple[str, ...],
    grade_seconds: float,
    stop_seconds: float,
    varying: bool,
    log: Path | None,
) -> int:
    """Examine a grader of your own against the running suite.

    SPEC (YAML) has an "item" that no other grader serves, and sound "answers" to it. COMMAND starts the
    grader; it is stopped, killed and started again on the way: write "--" before it when it has options. The
    caller must be an instructor. The exit code is 1 when some check failed.
    """
    subject = dataclasses.replace(
        _subject(spec), grade_seconds=grade_seconds, stop_seconds=stop_seconds, deterministic=not varying
    )
    failed = False
    with tempfile.TemporaryDirectory(prefix="cinnabar-conformance-") as folder:
        program = Program(command, {}, log or Path(folder) / "grader.log")
        async with aclosing(examine(session.client, program, subject)) as findings:
            async for finding in findings:
                failed = failed or bool(finding.problems)
                session.output.line(dataclasses.asdict(finding), _told(finding))
    return int(failed)


def _subject(spec: Path) -> Subject:
    match yaml.safe_load(spec.read_text("utf-8")):
        case {"item": {**described}, "answers": [_, *_] as answers}:
            plain = cast("dict[str, object]", described)
            item = assignment_from({"items": [plain | {"item": ITEM}]}).items[0]
            return Subject(
                item=item, answers=[answer_to(item, value) for value in cast("list[object]", answers)]
            )
        case _:
            raise click.UsageError(f"{spec} must have an item, and a list of answers that is not empty")


def _told(finding: Finding) -> Text:
    head = Text.assemble(
        ("fail" if finding.problems else "pass", "bold red" if finding.problems else "green"),
        f"  {finding.check}  ",
        (f"{finding.seconds:.1f} s  {finding.rule}", "dim"),
    )
    return Text("\n      ").join([head, *map(Text, finding.problems[:10])])
