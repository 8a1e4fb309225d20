"""How far items are whose grading takes long, for those who look at a submission while it runs.

Only queues whose graders tell are asked about, so that all other submissions cost nothing more. What
cannot be had is left out: the grade, when it is there, says everything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from cinnabar_common.errors import SuiteError
from cinnabar_common.names import task_id
from cinnabar_gateway.ports import Queue
from cinnabar_gateway.records import RunningTask, Submission, TaskState

log = logging.getLogger(__name__)

TELLING = ("code-", "custom-")
"""How the names of queues begin whose graders tell how far they are."""
MAX_ASKED = 1000
"""Tasks in one question; the rest of a larger one shows no progress."""


class Progress:
    """Asks the scheduler, for as long as a reader may wait for what is a courtesy."""

    def __init__(self, queue: Queue, *, wait_seconds: float = 0.5) -> None:
        self._queue = queue
        self._wait = wait_seconds

    async def filled(self, submissions: Sequence[Submission]) -> Sequence[Submission]:
        """The submissions, in order, with the progress of their open tasks. Never raises."""
        asked = [
            (
                index,
                task.item,
                RunningTask(task_id(one.submission_id, task.item), task.queue, task.generation),
            )
            for index, one in enumerate(submissions)
            for task in one.tasks
            if task.state is TaskState.OPEN and task.queue.startswith(TELLING)
        ][:MAX_ASKED]
        if not asked:
            return submissions
        try:
            async with asyncio.timeout(self._wait):
                found = await self._queue.progress([task for _, _, task in asked])
        except (SuiteError, TimeoutError) as error:
            log.info("no progress", extra={"tasks": len(asked), "error": str(error)})
            return submissions
        known: dict[int, dict[str, bytes]] = {}
        for (index, item, _), progress in zip(asked, found, strict=True):
            if progress:
                known.setdefault(index, {})[item] = progress
        return [
            replace(one, progress=known[index]) if index in known else one
            for index, one in enumerate(submissions)
        ]
