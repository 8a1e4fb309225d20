"""What every store promises about assignments."""

from __future__ import annotations

import pytest

from cinnabar_common.errors import EtagMismatch, InvalidRequest, ResourceExists, ResourceNotFound
from cinnabar_common.names import Bucket, bucket_of, new_id
from cinnabar_storage.records import AssignmentKey, AssignmentQuery, RevisionKey, RevisionQuery
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import new_tenant, revision


async def test_an_assignment_is_read_back(stored: Stored) -> None:
    given = revision(new_tenant(), "hw")
    created, position = await stored.assignments.create(given)
    assert created[:5] == given
    assert created.create_time == created.update_time > 0
    assert await stored.assignments.get([AssignmentKey(*given[:3], "")], [position]) == [created]


async def test_an_update_adds_a_revision_and_keeps_the_old_one(stored: Stored) -> None:
    tenant = new_tenant()
    first, second = revision(tenant, "hw", spec=b"1"), revision(tenant, "hw", spec=b"2")
    created, _ = await stored.assignments.create(first)
    updated, position = await stored.assignments.update(second, first.revision_id)
    assert updated[:5] == second
    assert updated.create_time == created.create_time
    assert updated.update_time > created.update_time
    current = AssignmentKey(tenant, "net", "hw", "")
    old = current._replace(revision_id=first.revision_id)
    assert await stored.assignments.get([current], [position]) == [updated]
    assert await stored.assignments.get([old], [position]) == [created]
    keys = [RevisionKey(tenant, first.revision_id), RevisionKey(tenant, second.revision_id)]
    assert set(await stored.assignments.revisions(keys)) == {created, updated}
    assert set(await stored.assignments.revisions(keys)) == {created, updated}


async def test_an_id_is_taken_once(stored: Stored) -> None:
    tenant = new_tenant()
    await stored.assignments.create(revision(tenant, "hw"))
    with pytest.raises(ResourceExists, match="courses/net/assignments/hw"):
        await stored.assignments.create(revision(tenant, "hw"))
    await stored.assignments.create(revision(tenant, "hw", course="other"))
    await stored.assignments.create(revision(new_tenant(), "hw"))


async def test_a_repeated_create_is_answered_like_the_first(stored: Stored) -> None:
    given = revision(new_tenant(), "hw")
    first, _ = await stored.assignments.create(given)
    again, _ = await stored.assignments.create(given)
    assert again == first
    with pytest.raises(ResourceExists):
        await stored.assignments.create(given._replace(spec=b"other"))


async def test_a_repeated_update_is_answered_like_the_first(stored: Stored) -> None:
    tenant = new_tenant()
    first, second = revision(tenant, "hw"), revision(tenant, "hw", spec=b"2")
    await stored.assignments.create(first)
    updated, _ = await stored.assignments.update(second, first.revision_id)
    again, _ = await stored.assignments.update(second, first.revision_id)
    assert again == updated


async def test_an_update_of_what_somebody_changed_is_refused(stored: Stored) -> None:
    tenant = new_tenant()
    first, second = revision(tenant, "hw"), revision(tenant, "hw")
    await stored.assignments.create(first)
    _, position = await stored.assignments.update(second, "")
    with pytest.raises(EtagMismatch):
        await stored.assignments.update(revision(tenant, "hw"), first.revision_id)
    [current] = await stored.assignments.get([AssignmentKey(tenant, "net", "hw", "")], [position])
    assert current.revision_id == second.revision_id


async def test_an_update_of_nothing_is_not_found(stored: Stored) -> None:
    with pytest.raises(ResourceNotFound):
        await stored.assignments.update(revision(new_tenant(), "hw"), "")


async def test_a_revision_id_is_taken_once(stored: Stored) -> None:
    tenant = new_tenant()
    first, second = revision(tenant, "hw"), revision(tenant, "hw")
    await stored.assignments.create(first)
    await stored.assignments.update(second, "")
    with pytest.raises(ResourceExists):
        await stored.assignments.update(first, "")
    with pytest.raises(ResourceExists):
        await stored.assignments.create(first._replace(assignment="other"))


async def test_a_revision_id_outside_of_its_courses_bucket_is_refused(stored: Stored) -> None:
    tenant = new_tenant()
    wrong = Bucket((bucket_of(tenant, "course:net") + 1) % 1024)
    with pytest.raises(InvalidRequest, match="revision_id"):
        await stored.assignments.create(revision(tenant, "hw")._replace(revision_id=new_id(wrong)))


async def test_another_tenant_sees_nothing(stored: Stored) -> None:
    tenant, stranger = new_tenant(), new_tenant()
    given = revision(tenant, "hw")
    _, position = await stored.assignments.create(given)
    assert await stored.assignments.get([AssignmentKey(stranger, "net", "hw", "")], [position]) == []
    assert await stored.assignments.revisions([RevisionKey(stranger, given.revision_id)]) == []
    query = AssignmentQuery(stranger, "net", "", 10)
    assert await stored.assignments.list(query, []) == ([], False)


async def test_a_revision_of_another_assignment_is_not_found(stored: Stored) -> None:
    tenant = new_tenant()
    await stored.assignments.create(revision(tenant, "one"))
    other = revision(tenant, "two")
    _, position = await stored.assignments.create(other)
    keys = [AssignmentKey(tenant, "net", "one", other.revision_id)]
    assert await stored.assignments.get(keys, [position]) == []


async def test_a_course_is_listed_by_id_in_pages(stored: Stored) -> None:
    tenant = new_tenant()
    names = ["a", "a-1", "a0", "b", "c"]
    positions = [(await stored.assignments.create(revision(tenant, name)))[1] for name in reversed(names)]
    await stored.assignments.create(revision(tenant, "x", course="other"))
    seen: list[str] = []
    more = True
    while more:
        query = AssignmentQuery(tenant, "net", seen[-1] if seen else "", 2)
        page, more = await stored.assignments.list(query, positions)
        seen += [item.assignment for item in page]
    assert seen == sorted(names)


async def test_revisions_are_listed_newest_first(stored: Stored) -> None:
    tenant = new_tenant()
    made = [revision(tenant, "hw", spec=bytes([number])) for number in range(3)]
    await stored.assignments.create(made[0])
    for one in made[1:]:
        await stored.assignments.update(one, "")
    await stored.assignments.create(revision(tenant, "hw-2"))
    await stored.assignments.create(revision(new_tenant(), "hw"))
    newest_first = [one.revision_id for one in reversed(made)]
    query = RevisionQuery(tenant, "net", "hw", "", 2)
    assert await stored.assignments.revision_ids(query) == newest_first[:2]
    rest = query._replace(before=newest_first[1])
    assert await stored.assignments.revision_ids(rest) == newest_first[2:]
