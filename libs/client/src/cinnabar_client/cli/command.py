"""What all commands share: where the suite is, who calls, the form of the output, errors and exit codes."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from cinnabar_client.cli.output import Output
from cinnabar_client.cli.remembered import Remembered
from cinnabar_client.client import DEFAULT_TIMEOUT_SECONDS, Client
from cinnabar_client.connection import TOKEN_INVALID
from cinnabar_client.errors import ApiError

DEFAULT_ADDRESS = "127.0.0.1:8080"
STATE_VARIABLE = "CINNABAR_STATE"
P = ParamSpec("P")


@dataclass(slots=True)
class Settings:
    """The global options."""

    address: str = ""
    token: str = ""
    as_json: bool = False
    timeout: float = DEFAULT_TIMEOUT_SECONDS

    def resolved_address(self) -> str:
        """--address or CINNABAR_ADDRESS, or what the local stack wrote to the file CINNABAR_STATE."""
        state = os.environ.get(STATE_VARIABLE)
        if self.address or not state:
            return self.address or DEFAULT_ADDRESS
        try:
            return str(json.loads(Path(state).read_text("utf-8"))["addresses"]["envoy"])
        except (OSError, ValueError, KeyError, TypeError):
            raise click.UsageError(
                f"{STATE_VARIABLE}={state} is not the state file of a running stack"
            ) from None


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    client: Client
    output: Output


def shared_options(command: Callable[..., Any], *, environment: bool = False) -> Callable[..., Any]:
    """--address, --token, --timeout and --json, before the command's name or after it.

    Only those before the name look at the ``environment``, or else it would win over them.
    """
    for option in (
        click.option(
            "--json", "as_json", is_flag=True, default=None, expose_value=False, callback=_store,
            help="Print JSON: one document, or one object a line where there are many.",
        ),
        click.option(
            "--timeout", type=click.FloatRange(min=0, min_open=True), expose_value=False, callback=_store,
            help=f"Deadline of each call in seconds (default {DEFAULT_TIMEOUT_SECONDS:g}).",
        ),
        click.option(
            "--token", envvar="CINNABAR_TOKEN" if environment else None, expose_value=False, callback=_store,
            help="Credential of the caller (CINNABAR_TOKEN).",
        ),
        click.option(
            "--address", envvar="CINNABAR_ADDRESS" if environment else None, metavar="HOST:PORT",
            expose_value=False, callback=_store,
            help=f"Where the suite listens (CINNABAR_ADDRESS; default {DEFAULT_ADDRESS}).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _store(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None:
        setattr(context.ensure_object(Settings), parameter.name, value)


def api_command(
    body: Callable[Concatenate[Session, P], Awaitable[int | None]],
) -> Callable[..., Any]:
    """Makes a click callback of a coroutine; it may return the exit code. Errors are told by ``main``."""

    @functools.wraps(body)
    @click.pass_context
    def callback(context: click.Context, /, *args: P.args, **kwargs: P.kwargs) -> int:
        settings = context.ensure_object(Settings)

        async def run() -> int:
            address = settings.resolved_address()
            remembered = Remembered(address, settings.token)
            kept = remembered.read()

            async def once(consistency_token: str) -> int:
                client = Client(
                    address,
                    token=settings.token,
                    timeout=settings.timeout,
                    consistency_token=consistency_token,
                )
                try:
                    async with client:
                        session = Session(client, Output(as_json=settings.as_json))
                        return await body(session, *args, **kwargs) or 0
                finally:  # also of a command that failed after it had written
                    if client.consistency_token != kept:
                        remembered.write(client.consistency_token)

            try:
                return await once(kept)
            except ApiError as error:
                # Of a suite that was set up anew: the first call is refused, before anything is done.
                if not kept or error.reason != TOKEN_INVALID:
                    raise
            return await once("")

        return asyncio.run(run())

    return shared_options(callback)
