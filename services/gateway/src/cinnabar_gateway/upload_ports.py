"""Files that lie beside the suite: what the gateway needs of storage for them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cinnabar_common.names import AssignmentName, UploadName
from cinnabar_gateway.consistency import Position


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is; ``sha256`` are 32 bytes."""

    content_type: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """A file that is announced as the answer to an item."""

    tenant: str
    parent: AssignmentName
    item: str
    author: str
    facts: FileFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedUpload:
    """How to upload it: a form to ``url``, with ``fields`` before the file, until ``expire_time_us``."""

    name: UploadName
    url: str
    fields: tuple[tuple[str, str], ...]
    expire_time_us: int
    position: Position


@dataclass(frozen=True, slots=True)
class UploadUse:
    """An upload that the answer of ``author`` to ``item`` refers to."""

    name: UploadName
    item: str
    author: str


class UploadVerdict(enum.Enum):
    """Whether an upload can be used; the names are those of storage."""

    READY = 1
    UNKNOWN = 2
    WRONG_ITEM = 3
    ATTACHED = 4
    EXPIRED = 5
    MISSING = 6
    WRONG_SIZE = 7
    WRONG_CONTENT_TYPE = 8
    WRONG_SHA256 = 9
    UNAVAILABLE = 10
    SHARD_UNAVAILABLE = 11


@dataclass(frozen=True, slots=True)
class VerifiedUpload:
    """Whether an upload can be used, and what it is when it is READY."""

    verdict: UploadVerdict
    facts: FileFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLink:
    """A link to a file, good until ``expire_time_us``."""

    name: UploadName
    facts: FileFacts
    url: str
    expire_time_us: int


class UploadStore(Protocol):
    """Where files are kept. Filters by tenant in everything; raises DependencyUnavailable, Overloaded.

    A submission takes the uploads that it refers to when it is created: see
    ``SubmissionStore.create_submissions``.
    """

    async def create_upload(self, new: NewUpload) -> PreparedUpload:
        """Announces a file."""
        ...

    async def verify_uploads(self, tenant: str, uses: Sequence[UploadUse]) -> list[VerifiedUpload]:
        """Whether uploads can be used as said, which may read what was uploaded; one each, in order."""
        ...

    async def upload_link(self, tenant: str, name: UploadName, *, author: str) -> UploadLink | None:
        """A link to a verified file; of ``author`` only unless that is "". None when there is none."""
        ...
