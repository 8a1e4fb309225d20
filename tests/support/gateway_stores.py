"""The gateway's stores, in memory and as the real storage service on real Postgres."""

from __future__ import annotations

import itertools
from typing import Protocol

import grpc

from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar_gateway.adapters.memory import MemoryStorage
from cinnabar_gateway.adapters.review_client import ReviewClient
from cinnabar_gateway.adapters.storage_client import StorageClient
from cinnabar_gateway.adapters.waiting_review_client import WaitingReviewClient
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.ports import AssignmentStore, SubmissionStore
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.review_ports import ReviewStore
from cinnabar_gateway.waiting_review_ports import WaitingReviewStore
from tests.support.storage_service import Storage

_fences = itertools.count(1)


class GatewayStore(AssignmentStore, SubmissionStore, Protocol):
    """Both stores in one."""


class Backend(Protocol):
    """A store, and what graders do to it."""

    @property
    def store(self) -> GatewayStore:
        """What the gateway sees."""
        ...

    @property
    def reviews(self) -> ReviewStore:
        """The same, of reviews."""
        ...

    @property
    def waiting_reviews(self) -> WaitingReviewStore:
        """The same, of grades that wait for a person."""
        ...

    async def grade(
        self,
        key: SubmissionKey,
        item: str,
        *,
        score: float,
        grade: bytes,
        doubts: tuple[str, ...] | None = None,
    ) -> Positions:
        """Commits a grade of an open task; one with ``doubts`` waits, of 4 points."""
        ...

    async def dead_letter(self, key: SubmissionKey, item: str, *, reason: str) -> Positions:
        """Gives up an open task after 3 attempts."""
        ...


class MemoryBackend:
    """In memory."""

    def __init__(self) -> None:
        self.store = MemoryStorage()
        self.reviews = self.store.reviews
        self.waiting_reviews = self.store.waiting_reviews

    async def grade(
        self,
        key: SubmissionKey,
        item: str,
        *,
        score: float,
        grade: bytes,
        doubts: tuple[str, ...] | None = None,
    ) -> Positions:
        """See Backend."""
        return self.store.grade(key, item, score=score, grade=grade, doubts=doubts, max_score=4.0)

    async def dead_letter(self, key: SubmissionKey, item: str, *, reason: str) -> Positions:
        """See Backend."""
        return self.store.dead_letter(key, item, reason=reason, attempts=3)


class StorageBackend:
    """The storage service, through the gateway's own client."""

    def __init__(self, storage: Storage, connection: grpc.aio.Channel) -> None:
        self.store = StorageClient(connection)
        self.reviews = ReviewClient(connection)
        self.waiting_reviews = WaitingReviewClient(connection)
        self._storage = storage

    async def grade(
        self,
        key: SubmissionKey,
        item: str,
        *,
        score: float,
        grade: bytes,
        doubts: tuple[str, ...] | None = None,
    ) -> Positions:
        """See Backend."""
        outcome = _fenced(key, item)
        outcome.grade.CopyFrom(
            pb.FencedOutcome.Grade(
                score=score,
                grade=grade,
                needs_review=doubts is not None,
                flags=doubts,
                max_score=0.0 if doubts is None else 4.0,
            )
        )
        return await self._commit(outcome)

    async def dead_letter(self, key: SubmissionKey, item: str, *, reason: str) -> Positions:
        """See Backend."""
        outcome = _fenced(key, item)
        outcome.dead_letter.CopyFrom(pb.FencedOutcome.DeadLetter(reason=reason, attempts=3))
        return await self._commit(outcome)

    async def _commit(self, outcome: pb.FencedOutcome) -> Positions:
        response = await self._storage.writer.CommitOutcomes(pb.CommitOutcomesRequest(outcomes=[outcome]))
        assert list(response.results) == [pb.CommitOutcomesResponse.Result.COMMITTED]
        return tuple(Position(one.shard, one.lsn) for one in response.positions)


def _fenced(key: SubmissionKey, item: str) -> pb.FencedOutcome:
    fence = next(_fences)
    return pb.FencedOutcome(
        tenant=key.tenant,
        submission_id=key.submission_id,
        item_id=item,
        generation=1,
        fence=fence,
        lease_token=f"{fence}-x",
        worker="worker",
    )
