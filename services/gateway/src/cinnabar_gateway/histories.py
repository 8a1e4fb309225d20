"""What happened to submissions: their grades, the audit, and whether its seals hold."""

from __future__ import annotations

import asyncio

from cinnabar_common.names import SubmissionName
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.records import Submission, SubmissionKey
from cinnabar_gateway.review_ports import ReviewStore
from cinnabar_gateway.review_records import (
    AuditCursor,
    AuditPage,
    AuditVerdict,
    GradingPage,
    SealCheck,
    SealLink,
)
from cinnabar_gateway.submissions import Submissions

MAX_BREAKS = 100
"""Places that a verdict names; one is enough to act."""


class Histories:
    """What happened; everybody sees what they may."""

    def __init__(self, store: ReviewStore, submissions: Submissions) -> None:
        self._store = store
        self._submissions = submissions

    async def gradings(
        self,
        identity: Identity,
        name: SubmissionName,
        *,
        after: tuple[str, int],
        limit: int,
        min_positions: Positions,
    ) -> tuple[Submission, GradingPage]:
        """Grades by (item, generation), those after ``after``; a student's are without shadows.

        And the submission. ResourceNotFound.
        """
        submission = await self._submissions.get(identity, name, min_positions)
        page = await self._store.list_gradings(
            SubmissionKey(identity.tenant, name.submission),
            shadows=identity.role is not Role.STUDENT,
            after=after,
            limit=limit,
            min_positions=min_positions,
        )
        return submission, page

    async def audit(
        self,
        identity: Identity,
        name: SubmissionName,
        *,
        after: AuditCursor | None,
        limit: int,
        min_positions: Positions,
    ) -> AuditPage:
        """What was done to it, oldest first. Callers have checked the role. ResourceNotFound."""
        await self._submissions.get(identity, name, min_positions)
        return await self._store.list_audit_events(
            SubmissionKey(identity.tenant, name.submission),
            after=after,
            limit=limit,
            min_positions=min_positions,
        )

    async def verify(self) -> AuditVerdict:
        """Checks every seal of every shard. DependencyUnavailable when one shard is away: no half verdict."""
        shards = await self._store.shard_count()
        checks = await asyncio.gather(*map(self._verify_shard, range(shards)))
        breaks = [
            (shard, seal, problem) for shard, check in enumerate(checks) for seal, problem in check.breaks
        ]
        return AuditVerdict(
            seals=sum(check.seals for check in checks),
            events=sum(check.events for check in checks),
            unsealed=sum(check.unsealed for check in checks),
            redacted=sum(check.redacted for check in checks),
            breaks=tuple(breaks[:MAX_BREAKS]),
            heads=tuple(check.link.hash for check in checks),
        )

    async def _verify_shard(self, shard: int) -> SealCheck:
        seals = events = redacted = 0
        breaks: list[tuple[int, str]] = []
        link: SealLink | None = None
        while True:
            check = await self._store.check_seals(shard, link)
            seals += check.seals
            events += check.events
            redacted += check.redacted
            breaks += check.breaks[: MAX_BREAKS - len(breaks)]
            link = check.link
            if not check.more:
                return SealCheck(
                    seals=seals,
                    events=events,
                    redacted=redacted,
                    breaks=tuple(breaks),
                    link=link,
                    more=False,
                    unsealed=check.unsealed,
                )
