"""Erasing everything about a student: storage does it, the queue is told what to forget at once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cinnabar_common.errors import ResourceNotFound, SuiteError
from cinnabar_common.names import Bucket, bucket_of, id_bucket, new_id
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.data_ports import DataStore, Erasure
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import Queue

log = logging.getLogger(__name__)


class Erasures:
    """The erasures of all tenants. Callers have checked the role."""

    def __init__(self, store: DataStore, queue: Queue, *, mint: Callable[[Bucket], str] = new_id) -> None:
        self._store = store
        self._queue = queue
        self._mint = mint

    async def erase(self, identity: Identity, student: str, reason: str) -> tuple[Erasure, Position]:
        """Begins to erase a student of the caller's tenant. Each call is an erasure of its own.

        StateForbids where nothing can be erased.
        """
        erasure, cancelled, position = await self._store.erase_student(
            identity.tenant,
            student,
            erasure_id=self._mint(bucket_of(identity.tenant, student)),
            actor=identity.actor,
            reason=reason,
        )
        if cancelled:
            try:
                await self._queue.cancel(cancelled)
            except SuiteError as error:  # the sweep takes out of the queue what is open no more
                log.warning("erased tasks stay queued", extra={"error": error.message})
        return erasure, position

    async def get(self, identity: Identity, erasure_id: str) -> Erasure:
        """ResourceNotFound."""
        found = None
        if id_bucket(erasure_id) is not None:
            found = await self._store.get_erasure(identity.tenant, erasure_id)
        if found is None:
            raise ResourceNotFound(f"erasures/{erasure_id}")
        return found
