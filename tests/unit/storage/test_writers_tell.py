"""Every write says what it changed, and where that can be read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.invalidation import CacheKey, assignment_key, revision_key, submission_key
from cinnabar_storage.records import Position, TaskKey
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, revision, submission


class Told:
    """Implements Invalidations; keeps what it was told last."""

    def __init__(self) -> None:
        self.last: dict[CacheKey, Position] = {}

    def changed(self, keys: Iterable[CacheKey], position: Position) -> None:
        self.last.update(dict.fromkeys(keys, position))

    def take(self) -> dict[CacheKey, Position]:
        """What came since the last call."""
        taken, self.last = self.last, {}
        return taken


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def shards(told: Told) -> Shards:
    return Shards([MemoryShard(), MemoryShard()], invalidations=told)


async def test_outcomes_cancellations_and_redrives(told: Told, shards: Shards) -> None:
    submissions, tasks = Submissions(shards), Tasks(shards)
    tenant = new_tenant()
    one, two = submission(tenant, items=("q1", "q2")), submission(tenant)
    await submissions.create([one, two])
    assert told.take() == {}, "what is new is in no cache"
    keys = {submission_key(tenant, row.submission_id) for row in (one, two)}

    _, positions = await tasks.commit([grade(one), dead_letter(one, "q2"), grade(two)])
    changed = told.take()
    assert set(changed) == keys
    assert set(changed.values()) == set(positions)

    await tasks.commit([grade(one, fence=2)])
    assert set(told.take()) == {submission_key(tenant, one.submission_id)}, "it may have been written before"

    await tasks.redrive(tenant, [TaskKey(one.submission_id, "q2")], "operator")
    assert set(told.take()) == {submission_key(tenant, one.submission_id)}

    _, positions, _ = await submissions.cancel([key(one), key(two)], "somebody")
    changed = told.take()
    assert set(changed) == keys
    assert set(changed.values()) == set(positions)


async def test_assignments(told: Told, shards: Shards) -> None:
    assignments = Assignments(shards)
    tenant = new_tenant()
    for write in (
        lambda: assignments.create(revision(tenant, "a1")),
        lambda: assignments.update(revision(tenant, "a1"), ""),
    ):
        _, position = await write()
        assert told.take() == {assignment_key(tenant, "net", "a1"): position}


def test_keys_of_tenants_are_apart_whatever_their_names_are() -> None:
    assert submission_key("a/b", "c") != submission_key("a", "b/c")
    assert assignment_key("a", "b/c", "d") != assignment_key("a", "b", "c/d")
    assert assignment_key("a/b", "c", "d") != assignment_key("a", "b/c", "d")
    assert revision_key("a/b", "c") != revision_key("a", "b/c")
    assert len({submission_key("a", "b"), revision_key("a", "b")}) == 2
