"""Rows of uploads in memory, held to the same contract as those in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cinnabar_storage.adapters.memory.tables import MemoryTables
from cinnabar_storage.files.records import Upload, UploadKind, UploadState
from cinnabar_storage.records import Lsn, Micros, NewSubmission


@dataclass(slots=True)
class MemoryUploads(MemoryTables):
    """Implements upload_ports.UploadRows, as a part of a shard: hence its submissions and its log."""

    _rows: dict[str, Upload] = field(default_factory=dict[str, Upload])

    async def create_upload(self, upload: Upload) -> tuple[Upload | None, Lsn]:
        if upload.kind == UploadKind.ARTIFACT:
            row = self._submissions.get(upload.submission_id or "")
            if row is None or row.tenant != upload.tenant:
                return None, self._written()
            upload = upload._replace(course=row.course, assignment=row.assignment, author=row.author)
        return self._rows.setdefault(upload.upload_id, upload), self._written()

    async def uploads(self, tenant: str, upload_ids: Sequence[str]) -> list[Upload]:
        return [
            upload
            for upload_id in dict.fromkeys(upload_ids)
            if (upload := self._rows.get(upload_id)) is not None and upload.tenant == tenant
        ]

    async def uploads_of(self, tenant: str, author: str, limit: int) -> list[Upload]:
        return [
            upload for upload in self._rows.values() if (upload.tenant, upload.author) == (tenant, author)
        ][:limit]

    async def verify_uploads(self, tenant: str, keys: Mapping[str, str]) -> set[str]:
        for upload in await self.uploads(tenant, list(keys)):
            if upload.state == UploadState.PENDING:
                self._rows[upload.upload_id] = upload._replace(
                    state=UploadState.VERIFIED, object_key=keys[upload.upload_id]
                )
        return {
            upload.upload_id
            for upload in await self.uploads(tenant, list(keys))
            if (upload.state, upload.object_key) == (UploadState.VERIFIED, keys[upload.upload_id])
        }

    async def doom_uploads(self, before: Micros, until: Micros, limit: int) -> list[Upload]:
        loose = [
            upload
            for upload in self._rows.values()
            if upload.expire_time < before
            and (upload.submission_id is None or upload.state != UploadState.VERIFIED)
        ]
        loose.sort(key=lambda upload: upload.expire_time)
        doomed = [upload._replace(state=UploadState.DOOMED, expire_time=until) for upload in loose[:limit]]
        self._rows.update((upload.upload_id, upload) for upload in doomed)
        return doomed

    async def drop_uploads(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            self._rows.pop(upload.upload_id, None)

    async def known_objects(self, keys: Sequence[tuple[str, str, str]]) -> set[str]:
        return {
            key
            for tenant, upload_id, key in keys
            if (upload := self._rows.get(upload_id)) is not None
            and (upload.tenant, upload.object_key) == (tenant, key)
        }

    def _may_attach(self, row: NewSubmission) -> bool:
        """Whether a submission may have the uploads that it refers to."""
        return all(self._fits(self._rows.get(upload_id), row) for upload_id in row.upload_ids)

    def _fits(self, upload: Upload | None, row: NewSubmission) -> bool:
        return (
            upload is not None
            and (upload.tenant, upload.course, upload.assignment, upload.author)
            == (row.tenant, row.course, row.assignment, row.author)
            and (upload.kind, upload.state) == (UploadKind.ANSWER, UploadState.VERIFIED)
            and upload.submission_id in (None, row.submission_id)
        )

    def _attach(self, row: NewSubmission) -> None:
        """A submission was created: the uploads that it refers to are its own."""
        for upload_id in row.upload_ids:
            self._rows[upload_id] = self._rows[upload_id]._replace(submission_id=row.submission_id)
