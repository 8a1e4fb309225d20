"""``cinnabar assignment …``"""

from __future__ import annotations

from pathlib import Path

import click

from cinnabar_client import calibrating, render
from cinnabar_client.cli.command import Session, api_command
from cinnabar_client.cli.files import named, read_assignments
from cinnabar_client.convert import AssignmentDraft, InvalidInput, assignment_name, in_file
from cinnabar_client.errors import ApiError
from cinnabar_common.errors import FieldViolation

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def assignment() -> None:
    """Create, read and change assignments."""


@assignment.command("create")
@click.argument("file", type=_FILE)
@click.option("--course", default="", help="Id of the course; by default what the file says.")
@click.option("--id", "assignment_id", default="", help="Id of the assignment; else what the file says.")
@api_command
async def create(session: Session, file: Path, course: str, assignment_id: str) -> None:
    """Create the assignment, or all of them, that FILE (YAML) describes."""
    drafts = read_assignments(file)
    if assignment_id and len(drafts) > 1:
        raise click.UsageError("--id is for a file with one assignment")
    if missing := [draft for draft in drafts if not (course or draft.course)]:
        rule = "is needed, or --course"
        raise InvalidInput(
            [named(file, FieldViolation(f"{d.path}.course".lstrip("."), rule)) for d in missing]
        )
    for draft in drafts:
        try:
            made = await session.client.create_assignment(
                course or draft.course, draft.assignment, assignment_id=assignment_id or draft.assignment_id
            )
        except ApiError as error:
            raise _in_file(error, file, draft) from error
        if len(drafts) == 1:
            session.output.result(made, render.assignment(made))
        else:
            session.output.line(made, f"{made.name}  revision {made.revision_id}")


@assignment.command("get")
@click.argument("name", metavar="COURSE/ASSIGNMENT")
@api_command
async def get(session: Session, name: str) -> None:
    """Show an assignment."""
    found = await session.client.get_assignment(str(assignment_name(name)))
    session.output.result(found, render.assignment(found))


@assignment.command("list")
@click.argument("course")
@api_command
async def list_(session: Session, course: str) -> None:
    """List the assignments of COURSE."""
    found = [resource async for resource in session.client.list_assignments(course)]
    for resource in found:
        session.output.line(resource)
    session.output.view(render.assignments(found))


@assignment.command("update")
@click.argument("name", metavar="COURSE/ASSIGNMENT")
@click.argument("file", type=_FILE)
@click.option("--etag", default="", help="Refuse when this is not the current one.")
@api_command
async def update(session: Session, name: str, file: Path, etag: str) -> None:
    """Make a new revision of an assignment with what FILE (YAML) sets."""
    drafts = read_assignments(file)
    if len(drafts) != 1:
        raise click.UsageError("FILE must hold one assignment")
    changed = drafts[0].assignment
    changed.name, changed.etag = str(assignment_name(name)), etag
    try:
        made = await session.client.update_assignment(changed)
    except ApiError as error:
        raise _in_file(error, file, drafts[0]) from error
    session.output.result(made, render.assignment(made))


@assignment.command("calibrate")
@click.argument("name", metavar="COURSE/ASSIGNMENT")
@click.option("--item", required=True, help="Id of a free-text item.")
@click.option(
    "--accepted",
    multiple=True,
    metavar="SUBMISSION",
    help="Name of a submission whose grade is right as it is; may be given many times.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_command
async def calibrate(session: Session, name: str, item: str, accepted: tuple[str, ...], yes: bool) -> int:
    """Fit the grader to how you grade: make a new revision with the answers that you graded by hand.

    They are all answers to the item whose grade was overridden, and those of --accepted submissions; 10 or
    more are needed. The answers become part of the revision, also after the erasure of who wrote them.
    """
    resource = str(assignment_name(name))
    examples = await calibrating.graded_examples(session.client, resource, item, accepted=accepted)
    if len(examples) < calibrating.MIN_EXAMPLES:
        raise click.UsageError(
            f"{len(examples)} answers to {item} were graded by hand or accepted; "
            f"{calibrating.MIN_EXAMPLES} or more are needed"
        )
    if not yes:
        question = (
            f"{len(examples)} answers of students become part of the assignment, where instructors can read "
            "them, and stay there when their authors are erased. Go on?"
        )
        if not click.confirm(question, err=True):
            return 1
    made = await calibrating.calibrate(session.client, resource, item, examples)
    session.output.result(made, render.assignment(made))
    return 0


def _in_file(error: ApiError, file: Path, draft: AssignmentDraft) -> ApiError:
    """The same error, its violations by the paths of the file."""
    return ApiError(
        error.code,
        error.message,
        reason=error.reason,
        violations=tuple(named(file, violation) for violation in in_file(error.violations, draft)),
        metadata=error.metadata,
        retry_after=error.retry_after,
    )
