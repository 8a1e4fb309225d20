"""Composition root of a grader process."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version

from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving
from cinnabar_grader.adapters.scheduler_stream import SchedulerStream, StreamSettings
from cinnabar_grader.config import GraderConfig
from cinnabar_grader.convert import CompiledItems
from cinnabar_grader.free_text import FreeTextGrader, Scorer
from cinnabar_grader.graders import Grader
from cinnabar_grader.pace import Pace
from cinnabar_grader.rules.choice import choice_grader
from cinnabar_grader.rules.numeric import numeric_grader
from cinnabar_grader.rules.text import text_grader
from cinnabar_grader.semantic import SemanticRequest, SemanticScorer

log = logging.getLogger(__name__)

RULES: dict[str, Callable[[], Grader]] = {
    "choice": choice_grader,
    "numeric": numeric_grader,
    "text": text_grader,
}
FREE_TEXT = "free-text"
TRANSFERS = 8
"""Files that are moved at once."""
LAG_SAMPLES_PER_SECOND = 20

_PROBES = (
    SemanticRequest(question="What falls?", references=("An apple falls.",), answer="The apple falls."),
    SemanticRequest(question="什么落下？", references=("苹果从树上落下。",), answer="苹果落下。"),
)


class Dependencies:
    """What health asks: whether a scheduler is there and the model is loaded."""

    def __init__(self, streams: Sequence[SchedulerStream]) -> None:
        self._streams = streams
        self.model_loaded = False

    async def scheduler(self) -> None:
        """ConnectionError unless some scheduler has welcomed us."""
        if not any(stream.connected for stream in self._streams):
            raise ConnectionError("no stream is open")

    async def hearing(self) -> None:
        """ConnectionError when every scheduler has said nothing for longer than a lease lives."""
        if all(stream.deaf for stream in self._streams):
            raise ConnectionError("no scheduler is heard")

    async def model(self) -> None:
        """RuntimeError unless every model of the free-text grader is loaded."""
        if not self.model_loaded:
            raise RuntimeError("the model is not loaded")


def worker_id(configured: str) -> str:
    """The configured id, or host, process id and a random part."""
    if configured:
        return configured
    host = re.sub("[^a-z0-9-]", "-", socket.gethostname().lower())[:36]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


@asynccontextmanager
async def running(config: GraderConfig) -> AsyncGenerator[int]:
    """The grader, working; yields the port of its health service. Drains on exit."""
    with ExitStack() as stack:
        executors = {
            queue: stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=queue))
            for queue in config.queues
        }
        settings = StreamSettings(
            version=version("cinnabar-grader"),
            credits=config.credits_per_queue,
            executors=executors,
            compiled=CompiledItems(),
            transfers=stack.enter_context(ThreadPoolExecutor(TRANSFERS, thread_name_prefix="files")),
        )
        name = worker_id(config.worker)
        streams = [
            # Ids are unique among the workers of all schedulers, which may share one Redis.
            SchedulerStream(address, worker=f"{name}-{index}" if index else name, settings=settings)
            for index, address in enumerate(config.addresses)
        ]
        dependencies = Dependencies(streams)
        checks = {"scheduler": dependencies.scheduler}
        if FREE_TEXT in config.queues:
            checks["model"] = dependencies.model
        board = HealthBoard(checks, overall=dependencies.hearing, interval_seconds=0.5)
        async with (
            serving(config.listen, register=lambda server: None, services=(), health=board) as port,
            asyncio.TaskGroup() as group,
        ):
            for queue in config.queues:
                if queue in RULES:
                    _serve(streams, RULES[queue]())
            loader = group.create_task(_load(config, streams, dependencies), name="model-loader")
            pacer = group.create_task(_keep_pace(streams), name="pace")
            for stream in streams:
                group.create_task(stream.run(), name=f"scheduler-{stream.address}")
            log.info("worker started", extra={"worker": name, "queues": list(config.queues)})
            try:
                yield port
            finally:
                loader.cancel()
                pacer.cancel()
                await board.drain()
                await asyncio.gather(*(stream.drain(config.drain_seconds) for stream in streams))


def _serve(streams: Sequence[SchedulerStream], grader: Grader) -> None:
    for stream in streams:
        stream.serve(grader)


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


async def _load(config: GraderConfig, streams: Sequence[SchedulerStream], dependencies: Dependencies) -> None:
    """Loads the model while the other queues are worked on already."""
    if FREE_TEXT not in config.queues:
        return
    scorer, complete = await asyncio.to_thread(load_scorer, config.semantic_threads)
    dependencies.model_loaded = complete
    log.info("free-text grader ready", extra={"model": complete})
    _serve(streams, FreeTextGrader(scorer))


def load_scorer(threads: int) -> tuple[Scorer, bool]:
    """The scorer, warmed up, and whether every model of it is there.

    Without its models it scores on words alone and marks its scores as fallback.
    """
    try:
        scorer = SemanticScorer.load(threads=threads)
        scores = scorer.score(_PROBES)
    except Exception as error:  # a broken model package must not keep answers waiting for ever
        log.error("model not loaded, scoring on words alone", exc_info=error)
        return SemanticScorer(english=None, multilingual=None), False
    return scorer, not any(score.fallback for score in scores)
