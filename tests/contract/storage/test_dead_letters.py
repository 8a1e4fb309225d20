"""What every store promises about the list of dead letters."""

from __future__ import annotations

import pytest

from cinnabar_storage.records import DeadLetterQuery, Micros, NewSubmission, TaskKey
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, new_tenant, submission

FIRST = TaskKey("", "")


async def given_up(stored: Stored, row: NewSubmission, reason: str = "broken") -> str:
    """Creates it and gives its task up; returns the id."""
    await stored.submissions.create([row])
    await stored.tasks.commit([dead_letter(row, reason=reason)])
    return row.submission_id


async def listed(stored: Stored, query: DeadLetterQuery) -> list[str]:
    return [letter.task.submission_id for letter in (await stored.tasks.dead_letters(query)).letters]


async def test_a_course_and_an_assignment_have_their_own(stored: Stored) -> None:
    tenant = new_tenant()
    net_1 = await given_up(stored, submission(tenant))
    net_2 = await given_up(stored, submission(tenant, assignment="a2"))
    law_1 = await given_up(stored, submission(tenant, course="law"))
    everything = DeadLetterQuery(tenant, "", FIRST, 9)
    assert await listed(stored, everything) == sorted([net_1, net_2, law_1])
    assert await listed(stored, everything._replace(course="net")) == sorted([net_1, net_2])
    assert await listed(stored, everything._replace(assignment="a1")) == sorted([net_1, law_1])
    assert await listed(stored, everything._replace(course="net", assignment="a2")) == [net_2]
    assert await listed(stored, everything._replace(course="law", assignment="a2")) == []


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("100%", ["100% of a_b"]),
        ("%", ["100% of a_b"]),
        ("a_b", ["100% of a_b"]),
        ("Axb", ["Axb"]),
        ("axb", []),
        ("\\", ["back\\slash"]),
        ("k\\s", ["back\\slash"]),
        ("学", ["化学"]),
        ("' OR ''='", []),
    ],
)
async def test_a_part_of_the_reason_is_taken_letter_by_letter(
    stored: Stored, part: str, found: list[str]
) -> None:
    tenant = new_tenant()
    for reason in ("100% of a_b", "Axb", "back\\slash", "化学"):
        await given_up(stored, submission(tenant), reason)
    page = await stored.tasks.dead_letters(DeadLetterQuery(tenant, "", FIRST, 9, reason=part))
    assert [letter.task.reason for letter in page.letters] == found


async def test_the_time_of_giving_up_has_a_beginning_and_an_end(stored: Stored) -> None:
    tenant = new_tenant()
    ids = [await given_up(stored, submission(tenant)) for _ in range(3)]
    everything = DeadLetterQuery(tenant, "", FIRST, 9)
    times = {
        letter.task.submission_id: letter.task.update_time
        for letter in (await stored.tasks.dead_letters(everything)).letters
    }
    first, middle, last = (times[submission_id] for submission_id in ids)
    assert first < middle < last
    assert await listed(stored, everything._replace(given_up_after=middle)) == sorted(ids[1:])
    assert await listed(stored, everything._replace(given_up_before=middle)) == ids[:1]
    assert await listed(
        stored, everything._replace(given_up_after=middle, given_up_before=Micros(middle + 1))
    ) == [ids[1]]
    assert await listed(stored, everything._replace(given_up_after=middle, given_up_before=middle)) == []


async def test_filters_leave_pages_and_tenants_as_they_are(stored: Stored) -> None:
    tenant, stranger = new_tenant(), new_tenant()
    wanted = [
        await given_up(stored, submission(tenant), "timed out" if number % 2 else "crashed")
        for number in range(20)
    ][1::2]
    await given_up(stored, submission(stranger), "timed out")
    query = DeadLetterQuery(tenant, "text", FIRST, 3, course="net", assignment="a1", reason="timed")
    seen: list[str] = []
    while page := (await stored.tasks.dead_letters(query)).letters:
        assert len(page) <= 3
        seen += [letter.task.submission_id for letter in page]
        query = query._replace(after=TaskKey(page[-1].task.submission_id, page[-1].task.item_id))
    assert seen == sorted(wanted)
