"""What the commands print: for people, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import click
from google.protobuf.message import Message
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cinnabar_client import render
from cinnabar_client.convert import InvalidInput
from cinnabar_client.errors import ApiError
from cinnabar_common.errors import FieldViolation

_TABLE_WIDTH = 240


class Output:
    """Results go to stdout, everything else to stderr; with ``as_json`` both are JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.notes = Console(stderr=True, highlight=False, soft_wrap=True, quiet=as_json)

    def result(self, resource: Message, view: RenderableType) -> None:
        """One resource."""
        self.document(render.data(resource), view)

    def document(self, content: Mapping[str, object], view: RenderableType) -> None:
        """One JSON document, or its view."""
        if self.as_json:
            click.echo(json.dumps(content, ensure_ascii=False, indent=2))
        else:
            self.view(view)

    def line(self, content: Message | Mapping[str, object], view: RenderableType | None = None) -> None:
        """One of many: a line of JSON, or the view, where there is one."""
        if self.as_json:
            plain = render.data(content) if isinstance(content, Message) else content
            click.echo(json.dumps(plain, ensure_ascii=False))
        elif view is not None:
            self._console.print(view)

    def view(self, view: RenderableType) -> None:
        """For people only."""
        if self.as_json:
            return
        if isinstance(view, Table):
            # Names stay in one piece, to be copied; the terminal wraps lines that are too long for it.
            Console(highlight=False, width=max(self._console.width, _TABLE_WIDTH)).print(view)
        else:
            self._console.print(view)

    def error(self, error: ApiError | InvalidInput | click.ClickException) -> None:
        """A refusal, to stderr."""
        match error:
            case ApiError():
                content, label, violations = error.to_json(), error.reason, error.violations
                message = error.message
            case InvalidInput():
                label, message, violations = "INVALID_INPUT", "the input breaks rules", error.violations
                content = _content(label, message, violations)
            case _:
                label, message, violations = "USAGE", error.format_message(), ()
                content = _content(label, message, violations)
        if self.as_json:
            click.echo(json.dumps({"error": content}, ensure_ascii=False), err=True)
            return
        self.notes.print(Text.assemble(("error: ", "bold red"), (label, "bold"), " ", message))
        for violation in violations:
            self.notes.print(
                Text(f"  {violation.field}: {violation.rule}" if violation.field else f"  {violation.rule}")
            )


def _content(code: str, message: str, violations: tuple[FieldViolation, ...]) -> dict[str, object]:
    return {
        "code": code,
        "message": message,
        "violations": [{"field": v.field, "rule": v.rule} for v in violations],
    }
