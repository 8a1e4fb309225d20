"""Carries the faults of a schedule out on a running suite."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import redis.asyncio

from cinnabar_local.stack import Stack
from cinnabar_scheduler.adapters.redis_epoch import EPOCH_KEY, Epoch, Layout
from cinnabar_scheduler.policy import Policy
from tests.support.chaos_schedule import VALKEY, Fault, Kind
from tests.support.tcp_proxy import Mode, Proxies, TcpProxy
from tests.support.waiting import until

_MODES = {Kind.CUT: Mode.CUT, Kind.BLACKHOLE: Mode.BLACKHOLE, Kind.DELAY: Mode.DELAY}
SCHEDULERS = ("scheduler-0", "scheduler-1")
GRADERS = ("grader-0", "grader-1")
REBUILD_LINKS = tuple((scheduler, "storage-0") for scheduler in SCHEDULERS)
# How much later storage answers a rebuild that is to be caught in the middle, each way; what waits
# meanwhile, for the rebuild to have something to do; how long a rebuild may take to begin.
_REBUILD_DELAY_SECONDS = 0.4
_BACKLOG_SECONDS = 1.0
_REBUILD_BEGINS_SECONDS = 20.0


class Faults:
    """Begins and ends faults. ``down`` are the processes that do not run because of one.

    ``caught`` counts, for the faults that strike in the middle of a rebuild, how often it was one.
    """

    def __init__(self, stack: Stack, links: Proxies, clock: Path) -> None:
        self._stack = stack
        self._links = links
        self._clock = clock
        self.down: set[str] = set()
        self.caught: dict[Kind, int] = {}

    async def begin(self, fault: Fault) -> None:
        """Returns when it has struck."""
        match fault.kind:
            case Kind.KILL:
                await self._kill(fault.target)
            case Kind.PAUSE:
                self._stack.pause(fault.target)
            case Kind.FLUSH:
                await self._flush()
            case Kind.EMPTY:
                await self._kill(VALKEY)
                await self._start(VALKEY)
            case Kind.AWAY | Kind.FAST:
                self.down.add(fault.target)
                await self._stack.stop(fault.target)
            case Kind.IMMEDIATE:
                self.down.add(fault.target)
                self._stack.send_signal(fault.target, signal.SIGQUIT)
                await self._stack.exit_code(fault.target)
            case Kind.CUT | Kind.BLACKHOLE | Kind.DELAY:
                self._link(fault.target).set_mode(_MODES[fault.kind], delay_seconds=fault.amount)
            case Kind.CLOCK:
                self._step_clock(fault.target, fault.amount)
            case Kind.FLUSH_IN_REBUILD:
                async with self._in_a_rebuild(fault.kind):
                    await self._flush()
            case Kind.LEADER_KILLED_IN_REBUILD:
                async with self._in_a_rebuild(fault.kind) as leader:
                    await self._kill(leader)

    async def end(self, fault: Fault) -> None:
        """Returns when what was broken is whole again, not when everybody has noticed."""
        match fault.kind:
            case Kind.KILL | Kind.AWAY | Kind.FAST | Kind.IMMEDIATE:
                await self._start(fault.target)
            case Kind.PAUSE:
                self._stack.resume(fault.target)
            case Kind.CUT | Kind.BLACKHOLE | Kind.DELAY:
                self._link(fault.target).set_mode(Mode.OPEN)
            case Kind.CLOCK:
                self._step_clock(fault.target, 0.0)
            case Kind.LEADER_KILLED_IN_REBUILD:
                for scheduler in self.down & set(SCHEDULERS):
                    await self._start(scheduler)
            case Kind.FLUSH | Kind.EMPTY | Kind.FLUSH_IN_REBUILD:
                pass

    def _link(self, target: str) -> TcpProxy:
        caller, _, callee = target.partition(">")
        return self._links[caller, callee]

    async def _kill(self, name: str) -> None:
        self.down.add(name)
        await self._stack.kill(name)

    async def _start(self, name: str) -> None:
        await self._stack.start(name)
        self.down.discard(name)

    def _step_clock(self, name: str, offset: float) -> None:
        self._clock.write_text(f"{offset:g}", "utf-8")
        self._stack.send_signal(name, signal.SIGUSR1)

    async def _flush(self) -> None:
        async with _redis(self._stack) as client:
            await client.flushall()

    @asynccontextmanager
    async def _in_a_rebuild(self, kind: Kind) -> AsyncGenerator[str]:
        """The block runs while a scheduler, the one given, rebuilds the queues.

        Graders stand still so that there is something to rebuild, and storage answers late.
        """
        links = [self._links[link] for link in REBUILD_LINKS]
        for grader in GRADERS:
            self._stack.pause(grader)
        try:
            await asyncio.sleep(_BACKLOG_SECONDS)
            for link in links:
                link.set_mode(Mode.DELAY, delay_seconds=_REBUILD_DELAY_SECONDS)
            before = [link.counts.forwarded for link in links]
            await self._flush()
            async with _redis(self._stack) as client:
                epoch = Epoch(client, Layout(Policy()))

                async def begun() -> bool:
                    return await client.exists(EPOCH_KEY)

                await until(begun, description="a rebuild begins", seconds=_REBUILD_BEGINS_SECONDS)
                await asyncio.sleep(_REBUILD_DELAY_SECONDS / 2)
                if not await epoch.holds():
                    self.caught[kind] = self.caught.get(kind, 0) + 1
            # Nothing is graded meanwhile: who talks with storage is the one that rebuilds.
            talk = [link.counts.forwarded - was for link, was in zip(links, before, strict=True)]
            yield SCHEDULERS[talk.index(max(talk))]
        finally:
            for link in links:
                link.set_mode(Mode.OPEN)
            for grader in GRADERS:
                self._stack.resume(grader)


@asynccontextmanager
async def _redis(stack: Stack) -> AsyncGenerator[Any]:
    client = cast("Any", redis.asyncio).from_url(stack.addresses.redis_url)
    try:
        yield client
    finally:
        await client.aclose()
