"""Files in this process's memory: the same promises, nothing survives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cinnabar_common.clock import Clock, SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.names import UploadName, bucket_of, new_id
from cinnabar_gateway.consistency import Position
from cinnabar_gateway.records import NewSubmission
from cinnabar_gateway.upload_ports import (
    NewUpload,
    PreparedUpload,
    UploadLink,
    UploadUse,
    UploadVerdict,
    VerifiedUpload,
)

FORM_SECONDS = 900
_LINK_SECONDS = 300


@dataclass(frozen=True, slots=True)
class _Row:
    new: NewUpload
    name: UploadName
    expire_time_us: int
    content: tuple[bytes, str] | None = None
    submission_id: str = ""

    @property
    def verified(self) -> UploadVerdict:
        if self.content is None:
            return UploadVerdict.MISSING
        content, content_type = self.content
        if len(content) != self.new.facts.size_bytes:
            return UploadVerdict.WRONG_SIZE
        if content_type != self.new.facts.content_type:
            return UploadVerdict.WRONG_CONTENT_TYPE
        same = hashlib.sha256(content).digest() == self.new.facts.sha256
        return UploadVerdict.READY if same else UploadVerdict.WRONG_SHA256


class MemoryUploads:
    """Implements the port UploadStore; ``outage`` makes it refuse as without a store of objects."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._rows: dict[str, _Row] = {}
        self.outage = False

    def put(self, name: str, content: bytes, content_type: str = "text/plain") -> None:
        """Somebody fills in the form of an upload."""
        upload = name.rpartition("/")[2]
        self._rows[upload] = replace(self._rows[upload], content=(content, content_type))

    def _reach(self) -> None:
        if self.outage:
            raise DependencyUnavailable("objects")

    async def create_upload(self, new: NewUpload) -> PreparedUpload:
        """See UploadStore."""
        self._reach()
        upload = new_id(bucket_of(new.tenant, new.author))
        name = UploadName(new.parent.course, new.parent.assignment, upload)
        expire_time_us = int((self._clock.time() + FORM_SECONDS) * 1e6)
        self._rows[upload] = _Row(new, name, expire_time_us)
        return PreparedUpload(
            name=name,
            url="memory:",
            fields=(("key", upload),),
            expire_time_us=expire_time_us,
            position=Position(0, len(self._rows)),
        )

    async def verify_uploads(self, tenant: str, uses: Sequence[UploadUse]) -> list[VerifiedUpload]:
        """See UploadStore."""
        self._reach()
        return [self._verify(tenant, use) for use in uses]

    def _verify(self, tenant: str, use: UploadUse) -> VerifiedUpload:
        row = self._rows.get(use.name.upload)
        if row is None or (row.new.tenant, row.name, row.new.author) != (tenant, use.name, use.author):
            return VerifiedUpload(UploadVerdict.UNKNOWN)
        if row.new.item != use.item:
            return VerifiedUpload(UploadVerdict.WRONG_ITEM)
        if row.submission_id:
            return VerifiedUpload(UploadVerdict.ATTACHED)
        if row.expire_time_us <= self._clock.time() * 1e6:
            return VerifiedUpload(UploadVerdict.EXPIRED)
        verdict = row.verified
        return VerifiedUpload(verdict, row.new.facts if verdict is UploadVerdict.READY else None)

    async def upload_link(self, tenant: str, name: UploadName, *, author: str) -> UploadLink | None:
        """See UploadStore."""
        self._reach()
        row = self._rows.get(name.upload)
        if (
            row is None
            or row.new.tenant != tenant
            or author not in ("", row.new.author)
            or row.verified is not UploadVerdict.READY
        ):
            return None
        return UploadLink(
            name=row.name,
            facts=row.new.facts,
            url=f"memory:{name.upload}",
            expire_time_us=int((self._clock.time() + _LINK_SECONDS) * 1e6),
        )

    def attach(self, new: NewSubmission) -> bool:
        """Gives a submission the uploads that it refers to; False, and nothing, when one is not free."""
        rows = [self._rows.get(name.upload) for _, name in new.files]
        if any(row is None or row.submission_id not in ("", new.submission_id) for row in rows):
            return False
        self._rows.update(_attached(rows, new.submission_id))
        return True


def _attached(rows: Iterable[_Row | None], submission_id: str) -> dict[str, _Row]:
    return {row.name.upload: replace(row, submission_id=submission_id) for row in rows if row is not None}
