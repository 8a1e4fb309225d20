"""Files beside the tables: announced, uploaded past us, verified, attached, read.

A form writes to a key of its own below ``staging/``, and may do so again until it
expires. So what lies there is never used: verifying copies the object to a key that
no form reaches, reads the copy, and only a copy that is what was announced becomes
the file.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from cinnabar_common.clock import Clock
from cinnabar_common.errors import DependencyUnavailable, Overloaded, ResourceNotFound
from cinnabar_common.names import Bucket, id_bucket, new_id
from cinnabar_storage.files.ports import Objects
from cinnabar_storage.files.records import (
    FILES,
    STAGING,
    AnswerPlace,
    ArtifactPlace,
    FileFacts,
    Form,
    Upload,
    UploadKind,
    UploadState,
    Use,
    Verdict,
)
from cinnabar_storage.records import Micros, Position
from cinnabar_storage.shards.sharding import Shards, author_bucket

OBJECTS = "objects"
VERIFY_SECONDS = 4.0
"""How long one call verifies; what is not done by then is UNAVAILABLE, and can be asked for again."""
LOOKS_AT_ONCE = 32


class Verified(NamedTuple):
    """Whether an upload can be used, and what it is when it is READY."""

    verdict: Verdict
    facts: FileFacts | None = None


class Download(NamedTuple):
    """A verified upload and a link to it."""

    upload: Upload
    url: str


class Uploads:
    """The files of all tenants. Without ``objects`` there is no store for them, and calls say so."""

    def __init__(
        self, shards: Shards, objects: Objects | None, clock: Clock, *, form_seconds: int, link_seconds: int
    ) -> None:
        self._shards = shards
        self._store = objects
        self._clock = clock
        self._form_seconds = form_seconds
        self._link_seconds = link_seconds
        self._prepared = False
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    @property
    def _objects(self) -> Objects:
        if self._store is None:
            raise DependencyUnavailable(OBJECTS)
        return self._store

    def _now(self) -> Micros:
        return Micros(int(self._clock.time() * 1_000_000))

    async def create(
        self, tenant: str, place: AnswerPlace | ArtifactPlace, facts: FileFacts
    ) -> tuple[Upload, Form, Position]:
        """Announces a file; returns it, how to upload it, and where it can be read.

        Raises ResourceNotFound when the tenant has no such submission for an
        artifact, DependencyUnavailable, Overloaded.
        """
        if not self._prepared:
            await self._objects.prepare()
            self._prepared = True
        bucket = _bucket(tenant, place)
        upload_id, now = new_id(bucket), self._now()
        key = f"{STAGING}{tenant}/{upload_id}/{secrets.token_hex(16)}"
        expire_time = Micros(now + self._form_seconds * 1_000_000)
        match place:
            case AnswerPlace(course, assignment, item_id, author):
                kind, submission_id = UploadKind.ANSWER, None
            case ArtifactPlace(submission_id, item_id):
                kind, course, assignment, author = UploadKind.ARTIFACT, "", "", ""
        upload = Upload(
            *(upload_id, tenant, course, assignment, item_id, author, kind),
            *(facts.content_type, facts.size_bytes, facts.sha256),
            *(UploadState.PENDING, key, now, expire_time, submission_id),
        )
        [(shard, _, (stored, lsn))] = await self._shards.each(
            [upload], lambda _: bucket, lambda _, rows, __: rows.create_upload(upload)
        )
        if stored is None:
            raise ResourceNotFound(f"submissions/{submission_id}")
        internal = isinstance(place, ArtifactPlace)
        form = self._objects.form(key, facts, seconds=self._form_seconds, internal=internal)
        return stored, form, self._shards.position(shard, lsn)

    async def verify(self, tenant: str, uses: Sequence[Use]) -> list[Verified]:
        """Whether the uploads can be used as said; one result per use, in order.

        Raises DependencyUnavailable when there is no store of objects at all, Overloaded.
        """
        objects = self._objects
        parts, missing = await self._shards.each_reachable(
            uses,
            lambda use: id_bucket(use.upload_id),
            lambda _, shard, some: shard.uploads(tenant, list({use.upload_id for use in some})),
        )
        found = {upload.upload_id: upload for part in parts for upload in part.answer}
        silent = {uses[index] for index in missing}
        results = [_judged(found.get(use.upload_id), use, self._now()) for use in uses]
        for index, use in enumerate(uses):
            if use in silent:
                results[index] = Verified(Verdict.SHARD_UNAVAILABLE)
        # Several uses of one upload: it is looked at once.
        waiting = {
            upload_id: upload
            for use, result in zip(uses, results, strict=True)
            if result.verdict is Verdict.READY
            and (upload := found[upload_id := use.upload_id]).state == UploadState.PENDING
        }
        deadline = asyncio.get_running_loop().time() + VERIFY_SECONDS
        async with asyncio.TaskGroup() as group:
            looks = {
                upload_id: group.create_task(self._look(objects, upload, deadline), name="upload-verify")
                for upload_id, upload in waiting.items()
            }
        for index, use in enumerate(uses):
            if use.upload_id in looks and results[index].verdict is Verdict.READY:
                results[index] = looks[use.upload_id].result()
        return results

    async def _look(self, objects: Objects, upload: Upload, deadline: float) -> Verified:
        """Verifies one upload that is PENDING, by ``deadline``."""
        try:
            async with asyncio.timeout_at(deadline), self._looks:
                return await self._verified(objects, upload)
        except TimeoutError:
            return Verified(Verdict.UNAVAILABLE)

    async def _verified(self, objects: Objects, upload: Upload) -> Verified:
        bucket = _bucket_of(upload.upload_id)
        key = f"{FILES}{upload.tenant}/{upload.upload_id}/{secrets.token_hex(16)}"
        try:
            verdict = await _examined(objects, upload, key)
            if verdict is Verdict.READY:
                won = await self._shards.at(
                    bucket, lambda _, rows: rows.verify_uploads(upload.tenant, {upload.upload_id: key})
                )
                if won:
                    await objects.delete([upload.object_key])
                    return Verified(Verdict.READY, upload.facts)
                verdict = Verdict.EXPIRED
            if verdict is not Verdict.MISSING:
                await objects.delete([key])
        except DependencyUnavailable as error:
            away = (
                Verdict.UNAVAILABLE if error.metadata["dependency"] == OBJECTS else Verdict.SHARD_UNAVAILABLE
            )
            return Verified(away)
        except Overloaded:
            return Verified(Verdict.UNAVAILABLE)
        # Somebody else may have been faster, and have taken the object away.
        again = await self._shards.at(bucket, lambda _, rows: rows.uploads(upload.tenant, [upload.upload_id]))
        if again and again[0].state == UploadState.VERIFIED:
            return Verified(Verdict.READY, upload.facts)
        return Verified(verdict)

    async def downloads(
        self, tenant: str, upload_ids: Sequence[str], *, author: str, submission_id: str, internal: bool
    ) -> tuple[list[Download], Micros]:
        """Links to those that are verified, and until when they work.

        Of ``author`` and of ``submission_id`` only, where given. Raises
        DependencyUnavailable, Overloaded.
        """
        objects = self._objects
        parts = await self._shards.each(
            upload_ids, id_bucket, lambda _, shard, some: shard.uploads(tenant, list(dict.fromkeys(some)))
        )
        wanted = [
            upload
            for upload in {upload.upload_id: upload for part in parts for upload in part.answer}.values()
            if upload.state == UploadState.VERIFIED
            and author in ("", upload.author)
            and submission_id in ("", upload.submission_id)
        ]
        if not internal:
            sizes = await asyncio.gather(*(objects.stat(upload.object_key) for upload in wanted))
            wanted = [
                upload
                for upload, stat in zip(wanted, sizes, strict=True)
                if stat is not None and stat[0] == upload.size_bytes
            ]
        expire_time = Micros(self._now() + self._link_seconds * 1_000_000)
        return [
            Download(upload, objects.link(upload.object_key, seconds=self._link_seconds, internal=internal))
            for upload in wanted
        ], expire_time


def _bucket_of(upload_id: str) -> Bucket:
    bucket = id_bucket(upload_id)
    if bucket is None:
        raise ResourceNotFound(f"uploads/{upload_id}")
    return bucket


def _bucket(tenant: str, place: AnswerPlace | ArtifactPlace) -> Bucket:
    if isinstance(place, AnswerPlace):
        return author_bucket(tenant, place.author)
    bucket = id_bucket(place.submission_id)
    if bucket is None:
        raise ResourceNotFound(f"submissions/{place.submission_id}")
    return bucket


def _judged(upload: Upload | None, use: Use, now: Micros) -> Verified:
    """What the row alone says; READY also of one whose object is still to be looked at."""
    if upload is None or (
        (upload.kind, upload.course, upload.assignment, upload.author)
        != (UploadKind.ANSWER, use.course, use.assignment, use.author)
        if use.author
        else (upload.kind, upload.submission_id) != (UploadKind.ARTIFACT, use.submission_id)
    ):
        return Verified(Verdict.UNKNOWN)
    if upload.item_id != use.item_id:
        return Verified(Verdict.WRONG_ITEM)
    if use.author and upload.submission_id is not None:
        return Verified(Verdict.ATTACHED)
    kept = upload.kind == UploadKind.ARTIFACT and upload.state == UploadState.VERIFIED
    if upload.state == UploadState.DOOMED or (upload.expire_time <= now and not kept):
        return Verified(Verdict.EXPIRED)
    return Verified(Verdict.READY, upload.facts)


async def _examined(objects: Objects, upload: Upload, key: str) -> Verdict:
    """Compares what was uploaded with what was announced; leaves a copy under ``key``."""
    there = await objects.stat(upload.object_key)
    if there is None:
        return Verdict.MISSING
    size, content_type = there
    if size != upload.size_bytes:
        return Verdict.WRONG_SIZE
    if content_type != upload.content_type:
        return Verdict.WRONG_CONTENT_TYPE
    if not await objects.copy(upload.object_key, key):
        return Verdict.MISSING
    copied = await objects.facts(key, max_bytes=upload.size_bytes)
    if copied is None or copied.size_bytes != upload.size_bytes:
        return Verdict.WRONG_SIZE
    if copied.content_type != upload.content_type:
        return Verdict.WRONG_CONTENT_TYPE
    return Verdict.READY if copied.sha256 == upload.sha256 else Verdict.WRONG_SHA256
