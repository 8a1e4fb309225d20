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
from cinnabar_common.names import Bucket, id_bucket
from cinnabar_storage.cached.invalidation import submission_key
from cinnabar_storage.files.ports import Objects
from cinnabar_storage.files.records import Upload
from cinnabar_storage.ports import Shard
from cinnabar_storage.privacy.records import CLAIM_SECONDS, Erasure, NewErasure
from cinnabar_storage.records import Position, TaskKey
from cinnabar_storage.shards.sharding import Shards, author_bucket

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

        async def call(index: int, shard: Shard) -> tuple[list[tuple[TaskKey, str]], Position]:
            cancelled, lsn = await shard.begin_erasure(wanted)
            return cancelled, self._shards.position(index, lsn)

        cancelled, position = await self._shards.at(bucket, call)
        self._shards.invalidations.changed(
            [submission_key(tenant, key.submission_id) for key, _ in cancelled], position
        )
        self._asked.set()
        return await self.get(tenant, erasure_id), cancelled, position

    async def get(self, tenant: str, erasure_id: str) -> Erasure:
        """ResourceNotFound."""
        bucket = id_bucket(erasure_id)
        found = None
        if bucket is not None:
            found = await self._shards.at(bucket, lambda _, shard: shard.erasure(tenant, erasure_id))
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
        erasure = await self._shards[index].claim_erasure(CLAIM_SECONDS)
        if erasure is None:
            return False
        tenant, student = erasure.tenant, erasure.student
        if student:  # else retention died over it, and begins anew: what it did is proven here
            await self._erase_student(erasure, tenant, student)
        await self.complete(erasure)
        return True

    async def _erase_student(self, erasure: Erasure, tenant: str, student: str) -> None:
        # The bucket may move meanwhile: each step asks anew where it is.
        bucket = author_bucket(tenant, student)
        while uploads := await self._shards.at(
            bucket, lambda _, shard: shard.uploads_of(tenant, student, BATCH)
        ):
            await self._erase_files(erasure, uploads)
        while ids := await self._shards.at(
            bucket, lambda _, shard: shard.submissions_to_erase(tenant, student, BATCH)
        ):
            await self.erase_submissions(erasure, ids)
        for shard in self._shards:
            await shard.forget_in_filters(tenant, student)

    async def erase_submissions(self, erasure: Erasure, ids: Sequence[str]) -> None:
        """Removes these with all that belongs to them; they are on the shard of the erasure.

        Raises DependencyUnavailable, also when one of them is not there any more; Overloaded.
        """
        bucket = bucket_of_erasure(erasure)
        if uploads := await self._shards.at(
            bucket, lambda _, shard: shard.uploads_of_submissions(erasure.tenant, ids)
        ):
            await self._erase_files(erasure, uploads)
        # What a bucket did stays in the audit of the shard that it did it on.
        for shard in self._shards:
            await shard.redact_audit(erasure, ids)

        async def call(index: int, shard: Shard) -> Position:
            return self._shards.position(index, await shard.erase_submissions(erasure, ids))

        position = await self._shards.at(bucket, call)
        self._shards.invalidations.changed([submission_key(erasure.tenant, one) for one in ids], position)

    async def _erase_files(self, erasure: Erasure, uploads: Sequence[Upload]) -> None:
        if self._objects is None:
            raise StateForbids("erasures", "NO_OBJECT_STORE")
        await self._objects.delete([upload.object_key for upload in uploads])
        await self._shards.at(
            bucket_of_erasure(erasure), lambda _, shard: shard.erase_uploads(erasure, uploads)
        )

    async def complete(self, erasure: Erasure) -> None:
        """Counts what was redacted on all shards, and writes the proof."""
        redacted = sum([await shard.redacted_events(erasure.erasure_id) for shard in self._shards])
        await self._shards.at(
            bucket_of_erasure(erasure), lambda _, shard: shard.complete_erasure(erasure, redacted)
        )
        log.info("erased", extra={"erasure": erasure.erasure_id, "redacted": redacted})


def bucket_of_erasure(erasure: Erasure) -> Bucket:
    """Where an erasure is kept."""
    bucket = id_bucket(erasure.erasure_id)
    if bucket is None:
        raise ValueError(erasure.erasure_id)
    return bucket
