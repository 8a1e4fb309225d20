"""What the service answers with from the cache: the tenant's own, and never from before its own writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest_asyncio

from cinnabar.storage.v1 import records_pb2
from cinnabar_storage import responses
from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.announcements import Announcements
from cinnabar_storage.cached.cache import Cache
from cinnabar_storage.cached.reads import CachedReads
from cinnabar_storage.records import AssignmentKey, RevisionKey, SubmissionKey
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.scheduler_queue import ManualClock
from tests.support.storage_cache import MAX_AGE, cache_of, memory_cache
from tests.support.storage_domain import grade, key, new_tenant, revision, submission


@dataclass
class World:
    """The domain over two shards, and one process's cache in front of it."""

    reads: CachedReads
    submissions: Submissions
    tasks: Tasks
    assignments: Assignments
    cache: Cache


@pytest_asyncio.fixture
async def world() -> AsyncGenerator[World]:
    clock = ManualClock()
    shared = memory_cache(clock)
    async with cache_of(shared, clock).running() as cache:
        told = Announcements(cache, shared, max_age_seconds=MAX_AGE, clock=clock)
        shards = Shards([MemoryShard(), MemoryShard()], invalidations=told)
        submissions, assignments = Submissions(shards), Assignments(shards)
        reads = CachedReads(
            *(cache, shards, submissions, assignments),
            encode_submission=lambda found: responses.submission(found).SerializeToString(),
            encode_assignment=lambda found: responses.assignment(found).SerializeToString(),
        )
        yield World(reads, submissions, Tasks(shards), assignments, cache)


async def test_a_submission_is_cached_until_it_is_graded(world: World) -> None:
    row = submission(new_tenant())
    _, created = await world.submissions.create([row])
    first = await world.reads.submission(key(row), created)
    assert first is not None
    assert await world.reads.submission(key(row), created) == first
    assert world.cache.statistics.hits["submission", "process"] == 1
    _, graded = await world.tasks.commit([grade(row)])
    for positions in ([], created, graded):
        found = await world.reads.submission(key(row), positions)
        assert found is not None
        [shown] = records_pb2.SubmissionRecord.FromString(found).grades
        assert shown.score == 1.5


async def test_what_is_another_tenants_or_nobodys_is_not_there(world: World) -> None:
    row = submission(new_tenant())
    await world.submissions.create([row])
    assert await world.reads.submission(key(row), []) is not None
    other = new_tenant()
    assert await world.reads.submission(SubmissionKey(other, row.submission_id), []) is None
    assert await world.reads.submission(SubmissionKey(row.tenant, "no id of ours"), []) is None
    content = revision(row.tenant, "a1")
    await world.assignments.create(content)
    assert await world.reads.revisions([RevisionKey(row.tenant, content.revision_id)])
    assert await world.reads.revisions([RevisionKey(other, content.revision_id)]) == []
    assert await world.reads.assignment(AssignmentKey(row.tenant, "net", "a1", ""), [])
    assert await world.reads.assignment(AssignmentKey(other, "net", "a1", ""), []) is None


async def test_an_update_shows_at_once_and_old_revisions_stay(world: World) -> None:
    tenant = new_tenant()
    one, two = revision(tenant, "a1", spec=b"one"), revision(tenant, "a1", spec=b"two")
    current = AssignmentKey(tenant, "net", "a1", "")

    async def spec() -> bytes:
        found = await world.reads.assignment(current, [])
        return b"" if found is None else records_pb2.AssignmentRecord.FromString(found).spec

    assert await spec() == b""
    await world.assignments.create(one)
    assert await spec() == b"one"
    await world.assignments.update(two, one.revision_id)
    assert await spec() == b"two"
    keys = [RevisionKey(tenant, content.revision_id) for content in (one, two)]
    for _ in range(2):
        found = await world.reads.revisions([*keys, RevisionKey(tenant, "unknown"), keys[0]])
        assert sorted(records_pb2.AssignmentRecord.FromString(value).spec for value in found) == [
            b"one",
            b"two",
        ]
    assert world.cache.statistics.hits["revision", "process"] == 2
