"""Composition root of a grader process."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving
from cinnabar_grader.adapters.scheduler_stream import SchedulerStream, StreamSettings
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.convert import CompiledItems
from cinnabar_grader.kinds import KINDS, Kind
from cinnabar_grader.pace import Pace
from cinnabar_grader.workshop import Workshop

log = logging.getLogger(__name__)

TRANSFERS = 8
"""Files that are moved at once."""
LAG_SAMPLES_PER_SECOND = 20


class Ears:
    """What health asks of the streams."""

    def __init__(self, streams: Sequence[SchedulerStream]) -> None:
        self._streams = streams

    async def scheduler(self) -> None:
        """ConnectionError unless some scheduler has welcomed us."""
        if not any(stream.connected for stream in self._streams):
            raise ConnectionError("no stream is open")

    async def hearing(self) -> None:
        """ConnectionError when every scheduler has said nothing for longer than a lease lives."""
        if all(stream.deaf for stream in self._streams):
            raise ConnectionError("no scheduler is heard")


def worker_id(configured: str) -> str:
    """The configured id, or host, process id and a random part."""
    if configured:
        return configured
    host = re.sub("[^a-z0-9-]", "-", socket.gethostname().lower())[:36]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


@asynccontextmanager
async def running(config: GraderConfig, kinds: Sequence[Kind] = KINDS) -> AsyncGenerator[int]:
    """The grader, working; yields the port of its health service. Drains on exit."""
    async with AsyncExitStack() as exits:
        workshop = Workshop(config, kinds, exits)
        await workshop.open()
        settings = StreamSettings(
            version=version("cinnabar-grader"),
            credits=workshop.credits,
            compiled=CompiledItems(),
            transfers=exits.enter_context(ThreadPoolExecutor(TRANSFERS, thread_name_prefix="files")),
        )
        name = worker_id(config.worker)
        streams = [
            # Ids are unique among the workers of all schedulers, which may share one Redis.
            SchedulerStream(address, worker=f"{name}-{index}" if index else name, settings=settings)
            for index, address in enumerate(config.addresses)
        ]
        ears = Ears(streams)
        board = HealthBoard(
            {"scheduler": ears.scheduler, **workshop.checks}, overall=ears.hearing, interval_seconds=0.5
        )
        async with (
            serving(config.listen, register=lambda server: None, services=(), health=board) as port,
            asyncio.TaskGroup() as group,
        ):
            working = group.create_task(workshop.run(streams), name="workshop")
            pacer = group.create_task(_keep_pace(streams), name="pace")
            for stream in streams:
                group.create_task(stream.run(), name=f"scheduler-{stream.address}")
            log.info("worker started", extra={"worker": name, "queues": workshop.queues})
            try:
                yield port
            finally:
                pacer.cancel()
                await board.drain()
                await asyncio.gather(*(stream.drain(config.drain_seconds) for stream in streams))
                working.cancel()


async def _keep_pace(streams: Sequence[SchedulerStream]) -> None:
    """Samples how late the event loop is, for ever; the streams take less ahead while it is."""
    pace = Pace(samples_per_second=LAG_SAMPLES_PER_SECOND)
    period = 1 / LAG_SAMPLES_PER_SECOND
    while True:
        due = time.monotonic() + period
        await asyncio.sleep(period)
        if pace.observe(time.monotonic() - due):
            log.info("pace changed", extra={"share": pace.share, "lag_seconds": round(pace.lag_seconds, 3)})
            for stream in streams:
                stream.throttle(pace.share)
