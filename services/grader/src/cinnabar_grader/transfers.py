"""The files of a lane: answers are fetched before their tasks are graded, artifacts put away after.

Both go on aside: a store of objects that is slow or away holds up nobody else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from cinnabar_grader.answer_files import Author, Files, NotText, not_text, unkeepable
from cinnabar_grader.graders import (
    Artifact,
    Failed,
    FailureCode,
    FileAnswer,
    Graded,
    LeaseToken,
    Outcome,
    Task,
    Ungradable,
)

FILES_AT_ONCE = 8
"""Files of a lane on their way or waiting to be graded, which is how many are in memory."""


class Transfers:
    """Moves the files of one lane; to be entered before files come.

    Without ``files`` answers that are files stay as they are, and artifacts cannot be kept.
    """

    def __init__(
        self,
        author: Author,
        files: Files | None,
        *,
        finished: Callable[[Sequence[Outcome]], None],
        arrived: Callable[[], None],
    ) -> None:
        """``finished`` takes outcomes to be reported; ``arrived`` is called when a file is there."""
        self._author = author
        self._files = files
        self._finished = finished
        self._tell = arrived
        self._aside = asyncio.TaskGroup()
        self._room = asyncio.Semaphore(FILES_AT_ONCE)
        self._arrived: deque[Task] = deque()
        self._unsettled: dict[LeaseToken, asyncio.Event] = {}

    async def __aenter__(self) -> Transfers:
        """Files may come."""
        await self._aside.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """As the group of tasks inside."""
        return await self._aside.__aexit__(kind, error, trace)

    def without_files(self, batch: list[Task]) -> list[Task]:
        """Those of a batch that can be graded at once; the answers of the others are fetched."""
        if self._files is None or not any(type(task.answer) is FileAnswer for task in batch):
            return batch
        for task in batch:
            if isinstance(task.answer, FileAnswer):
                self._aside.create_task(self._fetch(self._files, task, task.answer), name="fetch")
        return [task for task in batch if not isinstance(task.answer, FileAnswer)]

    def next(self) -> Task | None:
        """A task whose file has arrived; say `settle` when it is graded."""
        return self._arrived.popleft() if self._arrived else None

    def settle(self, task: Task) -> None:
        """The task is graded, or will not be: its file is not needed any more."""
        settled = self._unsettled.pop(task.token, None)
        if settled is not None:
            task.answer = None  # the lease outlives its grading, and should not keep 16 MiB alive
            settled.set()

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Reports outcomes, those with artifacts when these have been put away."""
        heavy = [one for one in outcomes if isinstance(one, Graded) and one.artifacts]
        if heavy:
            outcomes = [one for one in outcomes if not (isinstance(one, Graded) and one.artifacts)]
            for one in heavy:
                self._aside.create_task(self._keep(one), name="keep")
        self._finished(outcomes)

    async def _fetch(self, files: Files, task: Task, file: FileAnswer) -> None:
        """Fetches the answer of a task, and is done when it is graded."""
        async with self._room:
            if task.cancelled:
                return
            try:
                archives = bool(getattr(task.item, "takes_archives", False))
                task.answer = await files.answer(task.token, file, archives=archives)
            except NotText:
                self._finished([not_text(task, self._author)])
            except Ungradable as error:
                self._finished([Failed(task.token, error.code, error.message)])
            else:
                settled = self._unsettled[task.token] = asyncio.Event()
                self._arrived.append(task)
                self._tell()
                await settled.wait()

    async def _keep(self, outcome: Graded) -> None:
        """Puts the artifacts of a grade away, then reports it."""
        failed = unkeepable(outcome)
        if failed is None and self._files is None:
            failed = Failed(outcome.token, FailureCode.INTERNAL, "there is no place for artifacts")
        if failed is None and self._files is not None:
            try:
                outcome.artifacts = [
                    await self._files.keep(outcome.token, one) if isinstance(one, Artifact) else one
                    for one in outcome.artifacts
                ]
            except Ungradable as error:
                failed = Failed(outcome.token, error.code, error.message)
        self._finished([failed or outcome])
