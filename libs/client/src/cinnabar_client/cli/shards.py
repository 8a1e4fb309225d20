"""``cinnabar ops shards …``"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from cinnabar.gateway.v1.operations_service_pb2 import BucketMove, ListShardsResponse, Replica
from cinnabar_client import render
from cinnabar_client.cli.command import Session, api_command, shared_options

_POLL_SECONDS = 0.25
_ROWS = 40
"""Moves that a person is shown."""


@api_command
async def _list(session: Session) -> None:
    _show(session, await session.client.list_shards())


def _shards() -> int:
    """Show the shards, what they own, and the buckets that move; or move some."""
    return _list() if click.get_current_context().invoked_subcommand is None else 0


shards = click.group("shards", invoke_without_command=True)(shared_options(_shards))


def _wait_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(min=0),
        default=None,
        metavar="SECONDS",
        help="Until no bucket moves any more, at most so long; exit code 1 when some still do.",
    )(command)


@shards.command()
@click.option(
    "--drain",
    "drained",
    type=int,
    multiple=True,
    metavar="INDEX",
    help="A shard that shall own nothing afterwards. May be repeated.",
)
@_wait_option
@api_command
async def rebalance(session: Session, drained: Sequence[int], wait_seconds: float | None) -> int:
    """Give every shard its fair share of the buckets, with the fewest moves."""
    return await _moving(session, await session.client.rebalance_shards(drained=drained), wait_seconds)


@shards.command()
@click.argument("buckets", metavar="BUCKET...", type=int, nargs=-1, required=True)
@click.option("--to", "to_shard", type=int, required=True, metavar="INDEX", help="The shard to move them to.")
@_wait_option
@api_command
async def move(session: Session, buckets: Sequence[int], to_shard: int, wait_seconds: float | None) -> int:
    """Move these buckets to a shard."""
    return await _moving(session, await session.client.move_buckets(buckets, to_shard), wait_seconds)


async def _moving(session: Session, planned: ListShardsResponse, wait_seconds: float | None) -> int:
    """Shows what is planned, or what came of it. Returns the exit code."""
    if wait_seconds is None:
        _show(session, planned)
        return 0
    now, deadline = planned, time.monotonic() + wait_seconds
    while now.moves and time.monotonic() < deadline:
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        now = await session.client.list_shards()
    _show(session, now)
    if now.moves:
        session.output.notes.print(Text(f"{len(now.moves)} buckets are still moving", style="red"))
    return int(bool(now.moves))


def _show(session: Session, given: ListShardsResponse) -> None:
    session.output.document(render.data(given, zeros=True), _view(given))


def _view(given: ListShardsResponse) -> RenderableType:
    table = render.columns("shard", "buckets", "primary", "replicas in rotation", "replicas' lag")
    for shard in given.shards:
        in_rotation = sum(replica.in_rotation for replica in shard.replicas)
        table.add_row(
            str(shard.index),
            str(shard.buckets),
            Text("reachable", style="green") if shard.reachable else Text("unreachable", style="red"),
            f"{in_rotation} of {len(shard.replicas)}",
            ", ".join(map(_lag, shard.replicas)) or "-",
        )
    epoch = Text(f"epoch {given.epoch}, {len(given.moves)} buckets to move", style="dim")
    if not given.moves:
        return Group(table, epoch)
    moves = render.columns("bucket", "from", "to", "step")
    for one in given.moves[:_ROWS]:
        step = BucketMove.Step.Name(one.step)
        moves.add_row(str(one.bucket), str(one.from_shard), str(one.to_shard), step)
    rest = len(given.moves) - _ROWS
    parts: list[RenderableType] = [table, epoch, moves]
    return Group(*parts, Text(f"and {rest} more", style="dim")) if rest > 0 else Group(*parts)


def _lag(replica: Replica) -> str:
    return f"{replica.lag_bytes} bytes" if replica.HasField("lag_bytes") else "unknown"
