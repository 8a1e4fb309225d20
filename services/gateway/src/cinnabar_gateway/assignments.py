"""Assignments: making revisions, and knowing the current one without asking each time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cinnabar_common.clock import Clock
from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_common.names import AssignmentName, Bucket, CourseName, bucket_of, new_id
from cinnabar_gateway.consistency import Position, Positions
from cinnabar_gateway.identity import Identity
from cinnabar_gateway.ports import AssignmentStore
from cinnabar_gateway.records import Assignment, AssignmentPage

R = TypeVar("R")
_UPDATE_ATTEMPTS = 6
_UPDATE_PAUSE_SECONDS = 0.02


def etag_of(revision_id: str) -> str:
    """The etag of a revision: its id in quotes."""
    return f'"{revision_id}"'


def _revision_of(etag: str) -> str:
    """The revision id inside an etag; "" when no revision has this etag."""
    inner = etag[1:-1]
    return inner if len(etag) > 2 and etag_of(inner) == etag else ""


def course_bucket(tenant: str, course: str) -> Bucket:
    """Where a course's assignments and their revisions live."""
    return bucket_of(tenant, f"course:{course}")


class Assignments:
    """The assignments of all tenants. Specs come validated."""

    def __init__(
        self,
        store: AssignmentStore,
        *,
        forget: Callable[[str, AssignmentName], None],
        mint: Callable[[Bucket], str] = new_id,
    ) -> None:
        """``forget`` is told of each change; ``mint`` makes ids."""
        self._store = store
        self._forget = forget
        self._mint = mint

    async def create(
        self, identity: Identity, course: CourseName, assignment_id: str, spec: bytes
    ) -> tuple[Assignment, Position]:
        """Stores a new assignment; makes its id when that is "". ResourceExists."""
        bucket = course_bucket(identity.tenant, course.course)
        return await self._store.create_assignment(
            Assignment(
                tenant=identity.tenant,
                name=AssignmentName(course.course, assignment_id or self._mint(bucket)),
                revision_id=self._mint(bucket),
                spec=spec,
            )
        )

    async def get(self, identity: Identity, name: AssignmentName, min_positions: Positions) -> Assignment:
        """The current revision. ResourceNotFound."""
        found = await self._store.get_assignment(
            identity.tenant, name, revision_id="", min_positions=min_positions
        )
        if found is None:
            raise ResourceNotFound(str(name))
        return found

    async def list(
        self, identity: Identity, course: CourseName, *, after: str, limit: int, min_positions: Positions
    ) -> AssignmentPage:
        """Current revisions by id, those after ``after``."""
        return await self._store.list_assignments(
            identity.tenant, course.course, after=after, limit=limit, min_positions=min_positions
        )

    async def update(
        self,
        identity: Identity,
        name: AssignmentName,
        *,
        etag: str,
        change: Callable[[bytes], bytes],
        min_positions: Positions,
    ) -> tuple[Assignment, Position]:
        """Makes a new revision: ``change`` of the spec that ``etag`` names, or of the current one for "".

        ``change`` may raise, and runs in a thread. ResourceNotFound; EtagMismatch when the etag is not
        current, or when others changed the assignment each time we tried.
        """
        expected = _revision_of(etag) if etag else ""
        attempt = 0
        while True:
            base = await self._store.get_assignment(
                identity.tenant, name, revision_id=expected, min_positions=min_positions
            )
            if base is None or (etag and not expected):
                await self.get(identity, name, min_positions)
                raise EtagMismatch(str(name))
            revision = Assignment(
                tenant=identity.tenant,
                name=name,
                revision_id=self._mint(course_bucket(identity.tenant, name.course)),
                spec=await asyncio.to_thread(change, base.spec),
            )
            try:
                stored = await self._store.update_assignment(revision, base.revision_id)
            except EtagMismatch:
                # Without an etag the caller does not care whose change came first, and
                # what we read may have come from a replica that lags.
                attempt += 1
                if etag or attempt == _UPDATE_ATTEMPTS:
                    raise
                await asyncio.sleep(_UPDATE_PAUSE_SECONDS * 2**attempt)
            else:
                self._forget(identity.tenant, name)
                return stored


@dataclass(slots=True)
class _Current:
    revision_id: str
    fresh_until: float


class CurrentRevisions(Generic[R]):
    """Current revisions, compiled into what the caller needs of them.

    Which revision is current is known for ``ttl_seconds``; a compiled revision
    never changes and is kept while there is room. One read serves everybody who
    asks for the same assignment meanwhile.
    """

    def __init__(
        self,
        store: AssignmentStore,
        build: Callable[[Assignment], R],
        clock: Clock,
        *,
        ttl_seconds: float = 1.0,
        max_revisions: int = 1000,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        """``max_bytes`` bounds the specs of all kept revisions together."""
        self._store = store
        self._build = build
        self._clock = clock
        self._ttl = ttl_seconds
        self._max_revisions = max_revisions
        self._max_bytes = max_bytes
        self._current: OrderedDict[tuple[str, AssignmentName], _Current] = OrderedDict()
        self._built: OrderedDict[tuple[str, str], tuple[R, int]] = OrderedDict()
        self._bytes = 0
        self._reads: dict[tuple[str, AssignmentName], asyncio.Future[R]] = {}

    async def get(self, tenant: str, name: AssignmentName, min_positions: Positions = ()) -> R:
        """The current revision. ResourceNotFound.

        With positions the store is asked, because the caller knows of something newer.
        """
        key = (tenant, name)
        if min_positions:
            return await self._read(key, min_positions)
        while True:
            current = self._current.get(key)
            if current is not None and self._clock.monotonic() < current.fresh_until:
                built = self._built.get((tenant, current.revision_id))
                if built is not None:
                    self._current.move_to_end(key)
                    self._built.move_to_end((tenant, current.revision_id))
                    return built[0]
            reading = self._reads.get(key)
            if reading is None:
                return await self._lead(key)
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                if not reading.cancelled():  # we are the one who was cancelled
                    raise

    def forget(self, tenant: str, name: AssignmentName) -> None:
        """Asks the store the next time."""
        self._current.pop((tenant, name), None)

    async def _lead(self, key: tuple[str, AssignmentName]) -> R:
        reading: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._reads[key] = reading
        try:
            built = await self._read(key, ())
            reading.set_result(built)
            return built
        except Exception as error:
            reading.set_exception(error)
            reading.exception()  # it is raised here even when nobody else waits
            raise
        finally:
            del self._reads[key]
            reading.cancel()

    async def _read(self, key: tuple[str, AssignmentName], min_positions: Positions) -> R:
        tenant, name = key
        asked = self._clock.monotonic()
        found = await self._store.get_assignment(tenant, name, revision_id="", min_positions=min_positions)
        if found is None:
            raise ResourceNotFound(str(name))
        built = self._keep(found)
        self._current[key] = _Current(found.revision_id, asked + self._ttl)
        self._current.move_to_end(key)
        while len(self._current) > self._max_revisions:
            self._current.popitem(last=False)
        return built

    def _keep(self, found: Assignment) -> R:
        key = (found.tenant, found.revision_id)
        kept = self._built.get(key)
        if kept is None:
            kept = self._built[key] = (self._build(found), len(found.spec))
            self._bytes += kept[1]
        self._built.move_to_end(key)
        while len(self._built) > 1 and (
            len(self._built) > self._max_revisions or self._bytes > self._max_bytes
        ):
            self._bytes -= self._built.popitem(last=False)[1][1]
        return kept[0]
