"""Ids and resource names: the only place that makes, parses and formats them."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType

BUCKETS = 1024
ID_PATTERN = re.compile(r"[a-z0-9-]{1,63}")
ID_RULE = "must be 1 to 63 of a-z, 0-9 and '-'"
_BUCKETED = re.compile(r"[0-9a-z]{26}-([0-3][0-9a-f]{2})")
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's alphabet, lower case: order is kept

Bucket = NewType("Bucket", int)


def is_id(text: str) -> bool:
    """Whether ``text`` may stand between the slashes of a resource name."""
    return ID_PATTERN.fullmatch(text) is not None


def bucket_of(tenant: str, key: str) -> Bucket:
    """The bucket of a tenant's author or course; stable across processes and releases.

    Changing this moves data.
    """
    digest = blake2b(f"{tenant}/{key}".encode(), digest_size=8).digest()
    return Bucket(int.from_bytes(digest) % BUCKETS)


class _Ticks:
    """Makes ids of one process strictly rise, also within one millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """A 130-bit number: 48 bits of ms, 80 bits of randomness (ULID), 2 spare."""
        fresh = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10))
        with self._lock:
            # A clock that stands still or goes back must not break the order.
            self._last = fresh if fresh >> 80 > self._last >> 80 else self._last + (1 << 40)
            return self._last


_ticks = _Ticks()


def new_id(bucket: Bucket) -> str:
    """A new id: 26 characters that rise with time, '-', the bucket in three hex digits."""
    return f"{_text_of(_ticks.next())}-{bucket:03x}"


def id_floor(milliseconds: int) -> str:
    """Sorts after every id made before this time (ms since 1970), and before all made from then on."""
    return _text_of(max(0, milliseconds) << 80)


def _text_of(number: int) -> str:
    return "".join([_BASE32[(number >> shift) & 31] for shift in range(125, -5, -5)])


def id_bucket(text: str) -> Bucket | None:
    """The bucket that an id carries; None when it is not one of ours."""
    match = _BUCKETED.fullmatch(text)
    return Bucket(int(match[1], 16)) if match else None


def task_id(submission: str, item: str) -> str:
    """Id of a grading task: "{submission}/{item}"."""
    return f"{submission}/{item}"


def split_task_id(task: str) -> tuple[str, str]:
    """(submission, item) of a task id. ValueError when it is malformed."""
    submission, slash, item = task.partition("/")
    if not slash or not submission or not is_id(item):
        raise ValueError(task)
    return submission, item


@dataclass(frozen=True, slots=True, order=True)
class CourseName:
    """courses/{course}"""

    course: str

    def __str__(self) -> str:
        return f"courses/{self.course}"

    @classmethod
    def parse(cls, text: str) -> CourseName | None:
        """None when ``text`` is not such a name."""
        parts = _parts(text, "courses")
        return cls(*parts) if parts else None


@dataclass(frozen=True, slots=True, order=True)
class AssignmentName:
    """courses/{course}/assignments/{assignment}"""

    course: str
    assignment: str

    def __str__(self) -> str:
        return f"courses/{self.course}/assignments/{self.assignment}"

    @classmethod
    def parse(cls, text: str) -> AssignmentName | None:
        """None when ``text`` is not such a name."""
        parts = _parts(text, "courses", "assignments")
        return cls(*parts) if parts else None


@dataclass(frozen=True, slots=True, order=True)
class SubmissionName:
    """courses/{course}/assignments/{assignment}/submissions/{submission}"""

    course: str
    assignment: str
    submission: str

    def __str__(self) -> str:
        return f"courses/{self.course}/assignments/{self.assignment}/submissions/{self.submission}"

    @property
    def parent(self) -> AssignmentName:
        """The assignment."""
        return AssignmentName(self.course, self.assignment)

    @classmethod
    def parse(cls, text: str) -> SubmissionName | None:
        """None when ``text`` is not such a name."""
        parts = _parts(text, "courses", "assignments", "submissions")
        return cls(*parts) if parts else None


@dataclass(frozen=True, slots=True, order=True)
class UploadName:
    """courses/{course}/assignments/{assignment}/uploads/{upload}"""

    course: str
    assignment: str
    upload: str

    def __str__(self) -> str:
        return f"courses/{self.course}/assignments/{self.assignment}/uploads/{self.upload}"

    @property
    def parent(self) -> AssignmentName:
        """The assignment."""
        return AssignmentName(self.course, self.assignment)

    @classmethod
    def parse(cls, text: str) -> UploadName | None:
        """None when ``text`` is not such a name."""
        parts = _parts(text, "courses", "assignments", "uploads")
        return cls(*parts) if parts else None


@dataclass(frozen=True, slots=True, order=True)
class RegradeName:
    """courses/{course}/assignments/{assignment}/regrades/{regrade}"""

    course: str
    assignment: str
    regrade: str

    def __str__(self) -> str:
        return f"courses/{self.course}/assignments/{self.assignment}/regrades/{self.regrade}"

    @property
    def parent(self) -> AssignmentName:
        """The assignment."""
        return AssignmentName(self.course, self.assignment)

    @classmethod
    def parse(cls, text: str) -> RegradeName | None:
        """None when ``text`` is not such a name."""
        parts = _parts(text, "courses", "assignments", "regrades")
        return cls(*parts) if parts else None


def _parts(text: str, *collections: str) -> tuple[str, ...] | None:
    parts = text.split("/")
    if len(parts) != 2 * len(collections) or tuple(parts[::2]) != collections:
        return None
    ids = tuple(parts[1::2])
    return ids if all(map(is_id, ids)) else None
