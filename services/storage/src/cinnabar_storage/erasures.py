"""Erasing a student: written down first, then step by step, each of which may be repeated.

Any storage process goes on with an erasure that nobody works on, so a crash costs
no more than time. What is promised: everything of the student that was committed
before the erasure was written down is gone when it is done. What is created while
it runs mostly goes too; who wants to be sure closes the account first, or asks again.

The order matters: objects before the rows that name them, the audit of other
shards before the rows that tell which submissions to look for there.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256

from cinnabar_common.errors import FieldViolation, InvalidRequest, ResourceNotFound, StateForbids, SuiteError
from cinnabar_common.names import id_bucket
from cinnabar_storage.erasure_records import CLAIM_SECONDS, Erasure, NewErasure
from cinnabar_storage.invalidation import submission_key
from cinnabar_storage.records import Position, TaskKey
from cinnabar_storage.sharding import Shards, author_bucket
from cinnabar_storage.upload_ports import Objects
from cinnabar_storage.upload_records import Upload

log = logging.getLogger(__name__)

BATCH = 200
"""Submissions, or files, of one step."""
_LABEL = b"cinnabar erasure\0"


class Erasures:
    """The erasures of all tenants."""

    def __init__(
        self, shards: Shards, objects: Objects | None, *, subject_key: str, poll_seconds: float = 1.0
    ) -> None:
        """``subject_key`` is the secret under which proofs name their subjects; "" when there is none."""
        self._shards = shards
        self._objects = objects
        self._subject_key = subject_key
        self._poll_seconds = poll_seconds
        self._asked = asyncio.Event()

    def subject(self, tenant: str, student: str) -> str:
        """How proofs name a student. Raises StateForbids when there is no key."""
        if not self._subject_key:
            raise StateForbids("erasures", "NO_SUBJECT_KEY")
        text = _LABEL + tenant.encode() + b"\0" + student.encode()
        return hmac.new(self._subject_key.encode(), text, sha256).hexdigest()

    async def begin(
        self, tenant: str, student: str, *, erasure_id: str, actor: str, reason: str
    ) -> tuple[Erasure, list[tuple[TaskKey, str]], Position]:
        """Writes it down. Returns it, the tasks that it cancelled with their queues, and where to read it.

        Raises InvalidRequest when the id is not in the student's bucket, StateForbids without a key.
        """
        bucket = author_bucket(tenant, student)
        if id_bucket(erasure_id) != bucket:
            raise InvalidRequest([FieldViolation("erasure_id", "must be an id in the bucket of the student")])
        wanted = NewErasure(erasure_id, tenant, student, self.subject(tenant, student), actor, reason)
        index = self._shards.map.shard_of(bucket)
        cancelled, lsn = await self._shards[index].begin_erasure(wanted)
        self._shards.invalidations.changed(
            [submission_key(tenant, key.submission_id) for key, _ in cancelled], Position(index, lsn)
        )
        self._asked.set()
        return await self.get(tenant, erasure_id), cancelled, Position(index, lsn)

    async def get(self, tenant: str, erasure_id: str) -> Erasure:
        """ResourceNotFound."""
        index = self._shards.map.shard_of_id(erasure_id)
        found = None if index is None else await self._shards[index].erasure(tenant, erasure_id)
        if found is None:
            raise ResourceNotFound(f"erasures/{erasure_id}")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Erasures]:
        """Erases inside of the block."""
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(self._loop(), name="erasures")
            try:
                yield self
            finally:
                loop.cancel()

    async def _loop(self) -> None:
        while True:
            self._asked.clear()
            for index in range(len(self._shards)):
                try:
                    while await self.erase_one(index):
                        pass
                except SuiteError as error:
                    log.warning("an erasure is interrupted", extra={"shard": index, "error": error.message})
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def erase_one(self, index: int) -> bool:
        """Does one erasure of this shard that nobody works on, to its end; False when there is none.

        Raises DependencyUnavailable, Overloaded: what is done by then is done, and the rest
        is somebody's later.
        """
        shard = self._shards[index]
        erasure = await shard.claim_erasure(CLAIM_SECONDS)
        if erasure is None:
            return False
        tenant, student = erasure.tenant, erasure.student
        while student and (uploads := await shard.uploads_of(tenant, student, BATCH)):
            await self._erase_files(index, erasure, uploads)
        while student and (ids := await shard.submissions_to_erase(tenant, student, BATCH)):
            await self.erase_submissions(index, erasure, ids)
        if student:
            for other in self._shards:
                await other.forget_in_filters(tenant, student)
        await self.complete(index, erasure)
        return True

    async def erase_submissions(self, index: int, erasure: Erasure, ids: Sequence[str]) -> None:
        """Removes these with all that belongs to them; shard ``index`` has them, and the erasure."""
        shard = self._shards[index]
        if uploads := await shard.uploads_of_submissions(erasure.tenant, ids):
            await self._erase_files(index, erasure, uploads)
        for number, other in enumerate(self._shards):
            if number != index:
                await other.redact_audit(erasure, ids)
        lsn = await shard.erase_submissions(erasure, ids)
        self._shards.invalidations.changed(
            [submission_key(erasure.tenant, one) for one in ids], Position(index, lsn)
        )

    async def _erase_files(self, index: int, erasure: Erasure, uploads: Sequence[Upload]) -> None:
        if self._objects is None:
            raise StateForbids("erasures", "NO_OBJECT_STORE")
        await self._objects.delete([upload.object_key for upload in uploads])
        await self._shards[index].erase_uploads(erasure, uploads)

    async def complete(self, index: int, erasure: Erasure) -> None:
        """Counts what was redacted on all shards, and writes the proof."""
        redacted = [await shard.redacted_events(erasure.erasure_id) for shard in self._shards]
        await self._shards[index].complete_erasure(erasure, sum(redacted))
        log.info("erased", extra={"erasure": erasure.erasure_id, "redacted": sum(redacted)})
