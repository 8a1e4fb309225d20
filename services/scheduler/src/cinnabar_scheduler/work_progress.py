"""Progress that one worker tells on its stream, bounded in size and rate: the newest of a lease wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_scheduler import progress_convert
from cinnabar_scheduler.dispatch import Delivery
from cinnabar_scheduler.progress import ProgressReports
from cinnabar_scheduler.session import WorkerSession
from cinnabar_scheduler.tasks import Lease, LeaseToken

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
"""Between two writes of one stream; what is told meanwhile replaces what was told before."""


class WorkProgress:
    """No more waits here than the worker holds leases."""

    def __init__(
        self,
        reports: ProgressReports,
        session: WorkerSession,
        answer: Callable[[Delivery], None],
        *,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._reports = reports
        self._session = session
        self._answer = answer
        self._pause = pause_seconds
        self._waiting: dict[LeaseToken, tuple[Lease, bytes]] = {}
        self._news = asyncio.Event()

    def told(self, progress: pb.Progress) -> None:
        """The worker says how far a task is. ProtocolViolation before the hello.

        That of a lease which this stream does not hold is refused, as a heartbeat of it is.
        """
        lease = self._session.progress(progress.lease_token)
        if lease is None:
            _, unknown = self._session.heartbeat((progress.lease_token,))
            if unknown:
                self._answer(Delivery(cancelled=unknown))
        elif (payload := progress_convert.kept(progress)) is None:
            log.warning("progress cannot be kept", extra={"worker": self._session.worker})
        else:
            self._waiting[lease.token] = (lease, payload)
            self._news.set()

    async def run(self) -> None:
        """Writes what waits, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            # What has an outcome meanwhile is not news any more.
            told = [one for token, one in self._waiting.items() if token in self._session.held]
            self._waiting.clear()
            if told and (lost := self._session.drop(await self._reports.publish(told))):
                self._answer(Delivery(cancelled=lost))
            await asyncio.sleep(self._pause)
