"""The audit of a shard: what was done, in the order in which it was committed."""

from __future__ import annotations

from typing import NamedTuple

from cinnabar_storage.records import Micros


class AuditPosition(NamedTuple):
    """A place in the commit order of one shard's audit: the row of these numbers, or just before the first.

    ``xid`` is the number of the transaction that wrote the row, 0 for rows from
    before there were such numbers; ``audit_id`` tells its rows apart.
    """

    xid: int
    audit_id: int


START = AuditPosition(0, 0)
"""Before every row."""


class AuditRow(NamedTuple):
    """Something that was done; the texts are empty when they were erased."""

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
