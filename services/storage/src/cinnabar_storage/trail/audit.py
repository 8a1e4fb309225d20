"""The audit of a shard: what was done, in the order in which it was committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cinnabar_storage.records import Micros, SubmissionKey


class AuditPosition(NamedTuple):
    """A place in the commit order of one shard's audit: the row of these numbers, or just before the first.

    ``xid`` is the number of the transaction that wrote the row, 0 for rows from
    before there were such numbers; ``audit_id`` tells its rows apart.
    """

    xid: int
    audit_id: int


class AuditRow(NamedTuple):
    """Something that was done; the texts (actor, detail) are empty when they were erased."""

    audit_id: int
    xid: int
    at: Micros
    tenant: str
    actor: str
    action: str
    submission_id: str
    item_id: str
    generation: int
    detail: str

    @property
    def position(self) -> AuditPosition:
        """Where it is in the commit order."""
        return AuditPosition(self.xid, self.audit_id)


class AuditCursor(NamedTuple):
    """A place in the list of events over all shards, which is by time, number and shard."""

    at: Micros
    audit_id: int
    shard: int


class AuditQuery(NamedTuple):
    """Which events of one shard: the first ``limit`` of a submission at or after (``at``, ``audit_id``).

    Without the one at this very place when it is ``exclusive``.
    """

    key: SubmissionKey
    at: Micros
    audit_id: int
    exclusive: bool
    limit: int


class AuditEvent(NamedTuple):
    """What was done to a submission, and whether a seal covers it."""

    at: Micros
    audit_id: int
    actor: str
    action: str
    item_id: str
    generation: int
    detail: str
    sealed: bool


class SealLink(NamedTuple):
    """A seal, as far as the next one depends on it."""

    seal: int
    last: AuditPosition
    hash: bytes


class CheckedSeal(NamedTuple):
    """A seal as it is stored, and what its events and itself come to now.

    ``found_events`` is no more than one above ``events``. Of redacted events,
    ``unproven`` have no record of their erasure, or still have texts.
    """

    link: SealLink
    previous_hash: bytes
    events: int
    rows_hash: bytes
    computed_hash: bytes
    found_events: int
    found_rows_hash: bytes
    redacted: int
    unproven: int


class SealPage(NamedTuple):
    """Some seals of one shard, in order, whether more follow, and what is behind the last of all.

    ``followed`` is how far sealing says that it came; ``unsealed`` are events that no seal covers.
    """

    seals: Sequence[CheckedSeal]
    more: bool
    unsealed: int
    followed: AuditPosition


class Break(NamedTuple):
    """A place where the chain does not hold: the number of a seal, and what is wrong."""

    seal: int
    problem: str


ORIGIN = AuditPosition(-(2**63), -(2**63))
"""Before every row there can be."""
BEFORE_THE_FIRST = SealLink(0, ORIGIN, b"")
NO_HASH = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""Stands for the hash of the seal before the first: SHA-256 of nothing."""


def breaks_of(before: SealLink, page: SealPage) -> list[Break]:
    """What is wrong with the seals of a page that comes after ``before``."""
    breaks: list[Break] = []
    for checked in page.seals:
        number = checked.link.seal
        if number != before.seal + 1:
            breaks.append(Break(before.seal + 1, "seal missing"))
        elif checked.previous_hash != (before.hash or NO_HASH):
            breaks.append(Break(number, "not linked to the seal before"))
        if checked.computed_hash != checked.link.hash:
            breaks.append(Break(number, "seal differs"))
        elif checked.found_events < checked.events:
            breaks.append(Break(number, "rows missing"))
        elif checked.found_events > checked.events:
            breaks.append(Break(number, "rows added"))
        elif checked.found_rows_hash != checked.rows_hash:
            breaks.append(Break(number, "rows differ"))
        if checked.unproven:
            breaks.append(Break(number, "redacted without proof"))
        before = checked.link
    if not page.more and page.followed > before.last:
        breaks.append(Break(before.seal + 1, "seal missing"))
    return breaks
