"""Files that lie beside the tables, as the domain sees them. Times are microseconds since 1970 UTC."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from cinnabar_storage.records import Micros

STAGING = "staging/"
"""Where forms put objects. Nothing here is trusted, and nothing here is older than a day."""
FILES = "files/"
"""Where verified objects lie: no form reaches them."""


class UploadKind(IntEnum):
    """What a file is for."""

    ANSWER = 1
    ARTIFACT = 2


class UploadState(IntEnum):
    """Where an upload is."""

    PENDING = 1
    """Announced; perhaps there, perhaps not."""
    VERIFIED = 2
    """There, as announced, where nobody can change it."""
    DOOMED = 3
    """Being collected: nothing may refer to it any more."""


class FileFacts(NamedTuple):
    """What a file is; ``sha256`` are 32 bytes."""

    content_type: str
    size_bytes: int
    sha256: bytes


class Upload(NamedTuple):
    """One file. ``submission_id`` is None while no submission refers to it; an artifact is born with one."""

    upload_id: str
    tenant: str
    course: str
    assignment: str
    item_id: str
    author: str
    kind: int
    content_type: str
    size_bytes: int
    sha256: bytes
    state: int
    object_key: str
    create_time: Micros
    expire_time: Micros
    submission_id: str | None

    @property
    def facts(self) -> FileFacts:
        """What it is announced to be."""
        return FileFacts(self.content_type, self.size_bytes, self.sha256)


class AnswerPlace(NamedTuple):
    """The answer that a file is uploaded for."""

    course: str
    assignment: str
    item_id: str
    author: str


class ArtifactPlace(NamedTuple):
    """The grading that a file is a result of."""

    submission_id: str
    item_id: str


class Use(NamedTuple):
    """An upload, and what somebody wants to use it for: of ``author`` and ``submission_id`` one is empty."""

    upload_id: str
    item_id: str
    course: str = ""
    assignment: str = ""
    author: str = ""
    submission_id: str = ""


class Verdict(IntEnum):
    """Whether an upload can be used; numbers as in the proto."""

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


class Form(NamedTuple):
    """How to upload a file: an HTTP form, to be sent with the file, named "file", after its fields."""

    url: str
    fields: tuple[tuple[str, str], ...]


class StoredObject(NamedTuple):
    """An object of a listing."""

    key: str
    modified: Micros


def upload_of_key(key: str) -> tuple[str, str]:
    """(tenant, upload id) in the key of an object; empty for what is no key of ours."""
    parts = key.split("/")
    return (parts[1], parts[2]) if len(parts) == 4 else ("", "")
