"""All grades of an assignment, page by page: what a file of them is made of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

from cinnabar_common.errors import DependencyUnavailable, ResourceNotFound
from cinnabar_common.names import AssignmentName
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import AssignmentStore, SubmissionStore
from cinnabar_gateway.records import Submission, SubmissionPage

_PAGE = 500
_REVISIONS = 1000

Points = Mapping[str, float]
"""The points of each item of a revision, in its order."""


@dataclass(frozen=True, slots=True)
class ExportedSubmission:
    """A submission and the points of the items that it answered."""

    submission: Submission
    points: Points


class Export:
    """One export: the submissions that were accepted before it began, newest first.

    ``items``: the items of all revisions, those of the newest revision first.
    """

    def __init__(
        self,
        store: SubmissionStore,
        tenant: str,
        name: AssignmentName,
        revisions: Mapping[str, Points],
        first: SubmissionPage,
        *,
        latest_only: bool,
        min_positions: Positions,
    ) -> None:
        self.name = name
        self.items: Sequence[str] = list(
            dict.fromkeys(item for points in revisions.values() for item in points)
        )
        self._store = store
        self._tenant = tenant
        self._revisions = revisions
        self._first = first
        self._latest_only = latest_only
        self._min_positions = min_positions

    async def pages(self) -> AsyncGenerator[list[ExportedSubmission]]:
        """Everything, a page at a time. Raises what reading a page raises: there is no part left out.

        What is kept in memory is one page and, for the newest of each student, the students.
        """
        page = self._first
        seen: set[str] = set()
        while True:
            yield [
                ExportedSubmission(one, self._revisions[one.revision_id])
                for one in page.submissions
                if self._is_wanted(one, seen)
            ]
            if not page.more:
                return
            before = page.submissions[-1].submission_id
            page = await whole_page(self._store, self._tenant, self.name, before, self._min_positions)

    def _is_wanted(self, one: Submission, seen: set[str]) -> bool:
        # A revision that was not there at the start: accepted after it, by a clock that is behind.
        if one.revision_id not in self._revisions:
            return False
        if self._latest_only:
            if one.author in seen:
                return False
            seen.add(one.author)
        return True


class Exports:
    """Exports of all tenants."""

    def __init__(
        self,
        assignments: AssignmentStore,
        submissions: SubmissionStore,
        points_of: Callable[[bytes], Points],
    ) -> None:
        """``points_of`` reads a revision's spec."""
        self._assignments = assignments
        self._submissions = submissions
        self._points_of = points_of

    async def start(
        self, identity: Identity, name: AssignmentName, *, latest_only: bool, min_positions: Positions
    ) -> Export:
        """Begins an export that shows everything up to ``min_positions``.

        Raises ResourceNotFound, and DependencyUnavailable when a shard is away.
        """
        # Submissions before revisions: each is then of a revision that is known.
        first = await whole_page(self._submissions, identity.tenant, name, "", min_positions)
        revisions = {
            revision_id: await self._points(identity.tenant, name, revision_id)
            for revision_id in await self._revision_ids(identity.tenant, name)
        }
        if not revisions:
            raise ResourceNotFound(str(name))
        return Export(
            *(self._submissions, identity.tenant, name, revisions, first),
            latest_only=latest_only,
            min_positions=min_positions,
        )

    async def _revision_ids(self, tenant: str, name: AssignmentName) -> list[str]:
        ids: list[str] = []
        while True:
            before = ids[-1] if ids else ""
            page = await self._assignments.list_revisions(tenant, name, before=before, limit=_REVISIONS)
            ids += page
            if len(page) < _REVISIONS:
                return ids

    async def _points(self, tenant: str, name: AssignmentName, revision_id: str) -> Points:
        revision = await self._assignments.get_assignment(
            tenant, name, revision_id=revision_id, min_positions=()
        )
        if revision is None:
            raise ResourceNotFound(str(name))
        return self._points_of(revision.spec)


async def whole_page(
    store: SubmissionStore, tenant: str, name: AssignmentName, before: str, min_positions: Positions
) -> SubmissionPage:
    """A page in which nothing is missing. DependencyUnavailable names the shards that are."""
    page = await store.list_submissions(
        tenant, name, author="", before=before, limit=_PAGE, min_positions=min_positions
    )
    if page.unreachable:
        raise DependencyUnavailable(", ".join(f"shards/{shard}" for shard in page.unreachable))
    return page
