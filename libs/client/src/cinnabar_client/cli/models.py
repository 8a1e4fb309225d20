"""``cinnabar ops models``"""

from __future__ import annotations

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Group, RenderableType
from rich.text import Text

from cinnabar.gateway.v1.operations_service_pb2 import ListModelProvidersResponse, ModelProvider
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command

_STYLES = {ModelProvider.CLOSED: "green", ModelProvider.OPEN: "red", ModelProvider.HALF_OPEN: "yellow"}
_MICROS = 1_000_000


@click.command()
@api_command
async def models(session: Session) -> None:
    """Show whether the providers of language models answer, and what the tenant has spent on them."""
    given = await session.client.model_providers()
    session.output.document(render.data(given, zeros=True), _view(given))


def _view(given: ListModelProvidersResponse) -> RenderableType:
    providers = render.columns("provider", "breaker", "failures in a row", "next try", "calls")
    for one in given.providers:
        providers.add_row(
            one.provider,
            Text(ModelProvider.Breaker.Name(one.breaker), style=_STYLES.get(one.breaker, "")),
            str(one.failures),
            _time(one.retry_time) if one.HasField("retry_time") else "-",
            str(one.calls),
        )
    budgets = render.columns("budget", "tokens used", "of", "cost used", "of", "until")
    for one in given.budgets:
        budgets.add_row(
            one.scope or "tenant",
            str(one.tokens_used),
            str(one.token_limit) if one.token_limit else "-",
            f"{one.cost_used_micros / _MICROS:.6f}",
            f"{one.cost_limit_micros / _MICROS:.2f}" if one.cost_limit_micros else "-",
            _time(one.reset_time) if one.HasField("reset_time") else "-",
        )
    return Group(providers, budgets)


def _time(moment: Timestamp) -> str:
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")
