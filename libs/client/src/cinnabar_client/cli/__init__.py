"""The command line ``cinnabar``.

Exit codes: 0 done, 1 refused or failed, 2 bad usage or input, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

import click

from cinnabar_client.cli import (
    assignments,
    conformance,
    data,
    operations,
    regrades,
    reviews,
    submissions,
    uploads,
    waiting_reviews,
)
from cinnabar_client.cli.command import shared_options
from cinnabar_client.cli.output import Output
from cinnabar_client.convert import InvalidInput
from cinnabar_client.errors import ApiError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def _group() -> None:
    """Hand in homework to Cinnabar, watch it being graded, and read the grades."""


cinnabar = click.group()(shared_options(_group, environment=True))
cinnabar.add_command(assignments.assignment)
cinnabar.add_command(regrades.regrade)
cinnabar.add_command(waiting_reviews.reviews)
for command in (
    submissions.submit,
    submissions.watch,
    submissions.list_,
    submissions.show,
    submissions.cancel,
    reviews.override,
    reviews.gradings,
    reviews.audit,
    uploads.upload,
    uploads.download,
    data.export,
    data.statistics,
    conformance.conformance,
    operations.ops,
    operations.health,
):
    cinnabar.add_command(cast("click.Command", command))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line ``arguments`` (those of the process when None) and returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    output = Output(as_json="--json" in given)
    run = cast("Any", cinnabar.main)
    try:
        return int(run(given, prog_name="cinnabar", standalone_mode=False) or 0)
    except ApiError as error:
        output.error(error)
        return 1
    except TimeoutError:
        output.error(click.ClickException("not everything was graded in time"))
        return 1
    except InvalidInput as error:
        output.error(error)
        return 2
    except click.ClickException as error:
        if output.as_json:
            output.error(error)
        else:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.notes.print("interrupted")
        return _INTERRUPTED
