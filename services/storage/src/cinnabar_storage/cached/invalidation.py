"""Telling the caches of all processes what changed.

Whoever writes to a shard says so after the commit and before the answer, in one line::

    shards.invalidations.changed([submission_key(tenant, submission_id)], Position(shard, lsn))

It neither waits nor fails. Keys that no cache has cost next to nothing, so say
what *may* have changed: a write that found nothing to do can be named as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NewType, Protocol

from cinnabar_storage.records import Position

CacheKey = NewType("CacheKey", str)
"""Names one cached thing. The lengths in it keep tenants apart, whatever their names are."""


def submission_key(tenant: str, submission_id: str) -> CacheKey:
    """A submission with its tasks and grades, of which any may have changed."""
    return CacheKey(f"s:{len(tenant)}:{tenant}/{submission_id}")


def assignment_key(tenant: str, course: str, assignment: str) -> CacheKey:
    """Which revision of an assignment is current."""
    return CacheKey(f"a:{len(tenant)}:{tenant}/{len(course)}:{course}/{assignment}")


def revision_key(tenant: str, revision_id: str) -> CacheKey:
    """A revision, which never changes; only erasure names it."""
    return CacheKey(f"r:{len(tenant)}:{tenant}/{revision_id}")


class Invalidations(Protocol):
    """Where writers say what they changed."""

    def changed(self, keys: Iterable[CacheKey], position: Position) -> None:
        """What is cached of ``keys`` and does not show ``position`` yet is wrong from now on.

        ``position`` is one of the write's shard at or after its commit: the one that is answered with. When
        this returns, no read of this process is answered from before it; other
        processes follow as docs/caching.md promises.
        """
        ...


class NothingCached:
    """Implements Invalidations where there is no cache."""

    def changed(self, keys: Iterable[CacheKey], position: Position) -> None:
        return
