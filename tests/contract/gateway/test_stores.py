"""What the gateway may expect of a store, whichever it is."""

import time
from dataclasses import replace
from uuid import uuid4

import pytest

from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet
from cinnabar_common.errors import EtagMismatch, QueueDraining, ResourceExists, ResourceNotFound
from cinnabar_common.names import AssignmentName, bucket_of, new_id, task_id
from cinnabar_gateway.assignments import course_bucket
from cinnabar_gateway.consistency import merged
from cinnabar_gateway.records import (
    Assignment,
    DeadLetterFilter,
    Fate,
    NewSubmission,
    RedriveFate,
    SubmissionKey,
    TaskPlan,
    TaskState,
)
from tests.support.gateway_stores import Backend

NAME = AssignmentName("net", "a1")
ALL = DeadLetterFilter()


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody has used."""
    return f"tenant-{uuid4().hex[:12]}"


def revision(tenant: str, name: AssignmentName = NAME, spec: bytes = b"one") -> Assignment:
    """A revision with an id of its own."""
    return Assignment(
        tenant=tenant, name=name, revision_id=new_id(course_bucket(tenant, name.course)), spec=spec
    )


def submission(
    tenant: str,
    author: str = "ann",
    *,
    request_id: str = "",
    fingerprint: bytes = b"",
    name: AssignmentName = NAME,
) -> NewSubmission:
    """A submission of two items."""
    answers = [Answer(item="q1", text="one"), Answer(item="q2", text="two")]
    return NewSubmission(
        submission_id=new_id(bucket_of(tenant, author)),
        tenant=tenant,
        name=name,
        revision_id="r1",
        author=author,
        request_id=request_id,
        fingerprint=fingerprint,
        priority=3,
        answers=AnswerSet(answers=answers).SerializeToString(),
        max_score=2.5,
        tasks=[(TaskPlan(one.item, "text", f"r1/{one.item}"), one.SerializeToString()) for one in answers],
        create_time_us=time.time_ns() // 1000,
    )


def key(new: NewSubmission) -> SubmissionKey:
    """Its key."""
    return SubmissionKey(new.tenant, new.submission_id)


async def test_an_assignment_is_stored_once(backend: Backend, tenant: str) -> None:
    first = revision(tenant)
    stored, position = await backend.store.create_assignment(first)
    assert (stored.revision_id, stored.spec) == (first.revision_id, b"one")
    assert stored.create_time_us == stored.update_time_us > 0
    read = await backend.store.get_assignment(tenant, NAME, revision_id="", min_positions=(position,))
    assert read == stored
    with pytest.raises(ResourceExists) as raised:
        await backend.store.create_assignment(revision(tenant))
    assert raised.value.metadata == {"resource": str(NAME)}
    await backend.store.create_assignment(revision(f"{tenant}-2"))


async def test_a_revision_replaces_the_one_that_was_expected(backend: Backend, tenant: str) -> None:
    first, second = revision(tenant), revision(tenant, spec=b"two")
    created, _ = await backend.store.create_assignment(first)
    stored, position = await backend.store.update_assignment(second, first.revision_id)
    assert (stored.revision_id, stored.create_time_us) == (second.revision_id, created.create_time_us)
    assert stored.update_time_us >= created.update_time_us
    with pytest.raises(EtagMismatch):
        await backend.store.update_assignment(revision(tenant, spec=b"three"), first.revision_id)
    at = (position,)
    current = await backend.store.get_assignment(tenant, NAME, revision_id="", min_positions=at)
    assert current is not None
    assert current.spec == b"two"
    old = await backend.store.get_assignment(tenant, NAME, revision_id=first.revision_id, min_positions=at)
    assert old is not None
    assert old.spec == b"one"


async def test_what_is_not_there_is_not_found(backend: Backend, tenant: str) -> None:
    with pytest.raises(ResourceNotFound):
        await backend.store.update_assignment(revision(tenant), "")
    for revision_id in ("", revision(tenant).revision_id):
        assert (
            await backend.store.get_assignment(tenant, NAME, revision_id=revision_id, min_positions=())
            is None
        )
    assert await backend.store.get_submissions([key(submission(tenant))], ()) == []
    cancelled, _ = await backend.store.cancel_submission(key(submission(tenant)), "student/ann")
    assert cancelled == []


async def test_assignments_are_listed_by_id(backend: Backend, tenant: str) -> None:
    at = ()
    for assignment in ("b", "a", "c"):
        _, position = await backend.store.create_assignment(
            revision(tenant, AssignmentName("net", assignment))
        )
        at = (position,)
    await backend.store.create_assignment(revision(tenant, AssignmentName("os", "a")))
    pages = [
        await backend.store.list_assignments(tenant, "net", after=after, limit=2, min_positions=at)
        for after in ("", "b")
    ]
    assert [[one.name.assignment for one in page.assignments] for page in pages] == [["a", "b"], ["c"]]
    assert pages[1].more is False


async def test_a_submission_is_stored_with_its_tasks(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    [committed] = await backend.store.create_submissions([new])
    assert (committed.fate, committed.submission_id) == (Fate.CREATED, new.submission_id)
    [stored] = await backend.store.get_submissions([key(new)], committed.positions)
    assert (stored.tenant, stored.parent, stored.author, stored.priority) == (tenant, NAME, "ann", 3)
    assert (stored.answers, stored.max_score, stored.revision_id) == (new.answers, 2.5, "r1")
    assert stored.create_time_us == new.create_time_us
    assert {(task.item, task.queue, task.generation, task.state) for task in stored.tasks} == {
        ("q1", "text", 1, TaskState.OPEN),
        ("q2", "text", 1, TaskState.OPEN),
    }
    assert stored.grades == ()


async def test_a_request_is_committed_once(backend: Backend, tenant: str) -> None:
    first = submission(tenant, request_id="r", fingerprint=b"same")
    again = submission(tenant, request_id="r", fingerprint=b"same")
    other = submission(tenant, request_id="r", fingerprint=b"other")
    another = submission(tenant, "bob", request_id="r", fingerprint=b"other")
    await backend.store.create_submissions([first])
    fates = await backend.store.create_submissions([again, other, another])
    assert [one.fate for one in fates] == [Fate.DUPLICATE, Fate.CONFLICT, Fate.CREATED]
    assert fates[0].submission_id == first.submission_id
    stored = await backend.store.get_submissions([key(first), key(again), key(other)], fates[0].positions)
    assert [one.submission_id for one in stored] == [first.submission_id]
    [repeated] = await backend.store.create_submissions([first])
    assert (repeated.fate, repeated.submission_id) == (Fate.DUPLICATE, first.submission_id)


async def test_submissions_are_listed_newest_first(backend: Backend, tenant: str) -> None:
    new = [submission(tenant, f"s{number}") for number in range(5)]
    positions = (await backend.store.create_submissions(new))[0].positions
    ids = [one.submission_id for one in reversed(new)]
    first = await backend.store.list_submissions(
        tenant, NAME, author="", before="", limit=3, min_positions=positions
    )
    rest = await backend.store.list_submissions(
        tenant, NAME, author="", before=ids[2], limit=3, min_positions=positions
    )
    assert [one.submission_id for one in first.submissions + rest.submissions] == ids
    assert (first.more, rest.more) == (True, False)
    one = await backend.store.list_submissions(
        tenant, NAME, author="s2", before="", limit=3, min_positions=positions
    )
    assert [found.author for found in one.submissions] == ["s2"]


async def test_large_submissions_are_all_read_and_listed_without_a_gap(backend: Backend, tenant: str) -> None:
    new = [replace(submission(tenant, f"s{number}"), answers=bytes(3 * 1024 * 1024)) for number in range(12)]
    committed = await backend.store.create_submissions(new)
    positions = merged(*(one.positions for one in committed))
    read = await backend.store.get_submissions([key(one) for one in new], positions)
    assert {one.submission_id for one in read} == {one.submission_id for one in new}
    listed: list[str] = []
    more = True
    while more:
        page = await backend.store.list_submissions(
            tenant, NAME, author="", before=listed[-1] if listed else "", limit=20, min_positions=positions
        )
        listed += [one.submission_id for one in page.submissions]
        more = page.more
    assert listed == [one.submission_id for one in reversed(new)]


async def test_a_grade_takes_the_place_of_its_task(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    await backend.store.create_submissions([new])
    at = await backend.grade(key(new), "q1", score=1.5, grade=b"well")
    [stored] = await backend.store.get_submissions([key(new)], at)
    assert [task.item for task in stored.tasks] == ["q2"]
    [grade] = stored.grades
    assert (grade.item, grade.generation, grade.score, grade.grade) == ("q1", 1, 1.5, b"well")
    assert grade.create_time_us > 0


async def test_what_is_open_is_cancelled(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    await backend.store.create_submissions([new])
    await backend.grade(key(new), "q1", score=1, grade=b"")
    cancelled, at = await backend.store.cancel_submission(key(new), "student/ann")
    assert [(task.task, task.queue) for task in cancelled] == [(task_id(new.submission_id, "q2"), "text")]
    [stored] = await backend.store.get_submissions([key(new)], at)
    assert [task.state for task in stored.tasks] == [TaskState.CANCELLED]
    again, _ = await backend.store.cancel_submission(key(new), "student/ann")
    assert again == []


async def test_dead_letters_are_listed_and_redriven(backend: Backend, tenant: str) -> None:
    new = [submission(tenant, f"s{number}") for number in range(2)]
    await backend.store.create_submissions(new)
    for one in new:
        await backend.dead_letter(key(one), "q2", reason="broken")
    found = (await backend.store.list_dead_letters(tenant, ALL, after=("", ""), limit=10)).letters
    assert [(one.submission.submission, one.task.item) for one in found] == sorted(
        (one.submission_id, "q2") for one in new
    )
    assert {(one.task.reason, one.task.attempts, one.task.queue) for one in found} == {("broken", 3, "text")}
    assert found[0].submission.parent == NAME
    first = (found[0].submission.submission, "q2")
    rest = await backend.store.list_dead_letters(
        tenant, DeadLetterFilter(queue="text"), after=first, limit=10
    )
    assert [one.submission for one in rest.letters] == [found[1].submission]
    assert (rest.more, rest.unreachable) == (False, ())
    page = await backend.store.list_dead_letters(tenant, ALL, after=("", ""), limit=1)
    assert (page.letters, page.more) == (found[:1], True)
    elsewhere = await backend.store.redrive(
        tenant, [first, (first[0], "q1")], "operator/root", parent=AssignmentName("net", "a2")
    )
    assert (elsewhere.opened, elsewhere.fates) == ([], [RedriveFate.NOT_FOUND] * 2)
    redriven = await backend.store.redrive(
        tenant, [first, (first[0], "q1")], "operator/root", parent=found[0].submission.parent
    )
    [task] = redriven.opened
    assert redriven.fates == [RedriveFate.REDRIVEN, RedriveFate.OPEN]
    assert (task.task, task.queue, task.generation, task.item_key) == (task_id(*first), "text", 1, "r1/q2")
    assert Answer.FromString(task.answer) == Answer(item="q2", text="two")
    again = await backend.store.redrive(tenant, [first], "operator/root")
    assert (again.opened, again.fates) == ([], [RedriveFate.OPEN])


async def test_every_fate_of_a_redrive_is_told(backend: Backend, tenant: str) -> None:
    graded, cancelled = submission(tenant), submission(tenant, "bob")
    await backend.store.create_submissions([graded, cancelled])
    await backend.grade(key(graded), "q1", score=1.0, grade=b"g")
    await backend.store.cancel_submission(key(cancelled), "student/bob")
    unknown = new_id(bucket_of(tenant, "eve"))
    tasks = [
        (graded.submission_id, "q1"),
        (graded.submission_id, "none"),
        (cancelled.submission_id, "q1"),
        (unknown, "q1"),
    ]
    redriven = await backend.store.redrive(tenant, tasks, "operator/root")
    assert redriven.opened == []
    assert redriven.fates == [
        RedriveFate.GRADED,
        RedriveFate.NOT_FOUND,
        RedriveFate.CANCELLED,
        RedriveFate.NOT_FOUND,
    ]
    foreign = await backend.store.redrive(f"{tenant}-2", tasks[:1], "operator/root")
    assert foreign.fates == [RedriveFate.NOT_FOUND]


async def test_dead_letters_are_filtered(backend: Backend, tenant: str) -> None:
    one, other = submission(tenant), submission(tenant, "bob", name=AssignmentName("net", "a2"))
    elsewhere = submission(tenant, "eve", name=AssignmentName("db", "a1"))
    all_of_them = [one, other, elsewhere]
    await backend.store.create_submissions(all_of_them)
    for number, new in enumerate(all_of_them):
        await backend.dead_letter(key(new), "q1", reason=f"100% broken_{number}")

    async def listed(wanted: DeadLetterFilter) -> set[str]:
        found = await backend.store.list_dead_letters(tenant, wanted, after=("", ""), limit=10)
        return {letter.submission.submission for letter in found.letters}

    ids = [new.submission_id for new in all_of_them]
    assert await listed(ALL) == set(ids)
    assert await listed(DeadLetterFilter(course="net")) == set(ids[:2])
    assert await listed(DeadLetterFilter(course="net", assignment="a1")) == {ids[0]}
    assert await listed(DeadLetterFilter(reason="broken_1")) == {ids[1]}
    assert await listed(DeadLetterFilter(reason="100%")) == set(ids)
    assert await listed(DeadLetterFilter(reason="1%0")) == set()
    assert await listed(DeadLetterFilter(reason="brokenX")) == set()
    found = await backend.store.list_dead_letters(tenant, ALL, after=("", ""), limit=10)
    times = sorted(letter.task.update_time_us for letter in found.letters)
    assert len(await listed(DeadLetterFilter(given_up_after_us=times[0]))) == 3
    assert len(await listed(DeadLetterFilter(given_up_before_us=times[0]))) == 0
    assert len(await listed(DeadLetterFilter(given_up_before_us=times[-1] + 1))) == 3
    assert len(await listed(DeadLetterFilter(queue="text", course="db", reason="broken_2"))) == 1


async def test_times_come_back_and_go_to_the_queue(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    new.grade_after_us, new.grade_by_us = new.create_time_us + 60_000_000, new.create_time_us + 90_000_001
    committed = await backend.store.create_submissions([new])
    [read] = await backend.store.get_submissions([key(new)], committed[0].positions)
    assert (read.grade_after_us, read.grade_by_us) == (new.grade_after_us, new.grade_by_us)
    await backend.dead_letter(key(new), "q1", reason="late")
    [task] = (await backend.store.redrive(tenant, [(new.submission_id, "q1")], "operator/root")).opened
    assert (task.not_before_us, task.grade_by_us) == (new.grade_after_us, new.grade_by_us)


async def test_a_redrive_lifts_a_deadline_that_has_passed(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    new.grade_by_us = new.create_time_us - 1
    await backend.store.create_submissions([new])
    await backend.dead_letter(key(new), "q1", reason="late")
    [task] = (await backend.store.redrive(tenant, [(new.submission_id, "q1")], "operator/root")).opened
    assert (task.not_before_us, task.grade_by_us) == (None, None)


async def test_what_is_refused_is_only_looked_for(backend: Backend, tenant: str) -> None:
    def refused(request_id: str, fingerprint: bytes) -> NewSubmission:
        new = submission(tenant, request_id=request_id, fingerprint=fingerprint)
        new.refusal = QueueDraining("text")
        return new

    first = submission(tenant, request_id="r", fingerprint=b"f" * 16)
    await backend.store.create_submissions([first])
    asked = [refused("r", b"f" * 16), refused("r", b"g" * 16), refused("r-2", b"f" * 16)]
    committed = await backend.store.create_submissions(asked)
    assert [one.fate for one in committed] == [Fate.DUPLICATE, Fate.CONFLICT, Fate.ABSENT]
    assert committed[0].submission_id == first.submission_id
    assert await backend.store.get_submissions([key(one) for one in asked], committed[0].positions) == []


async def test_a_tenant_sees_nothing_of_another(backend: Backend, tenant: str) -> None:
    new = submission(tenant)
    committed = await backend.store.create_submissions([new])
    await backend.store.create_assignment(revision(tenant))
    foreign, at = f"{tenant}-2", committed[0].positions
    stolen = SubmissionKey(foreign, new.submission_id)
    assert await backend.store.get_submissions([stolen], at) == []
    assert (await backend.store.cancel_submission(stolen, "student/ann"))[0] == []
    assert await backend.store.get_assignment(foreign, NAME, revision_id="", min_positions=at) is None
    listed = await backend.store.list_submissions(
        foreign, NAME, author="", before="", limit=5, min_positions=at
    )
    assert listed.submissions == ()


async def test_all_revisions_are_listed_newest_first(backend: Backend, tenant: str) -> None:
    made = [revision(tenant, spec=bytes([number])) for number in range(3)]
    await backend.store.create_assignment(made[0])
    for one in made[1:]:
        await backend.store.update_assignment(one, "")
    await backend.store.create_assignment(revision(tenant, replace(NAME, assignment="a2")))
    ids = [one.revision_id for one in reversed(made)]
    assert await backend.store.list_revisions(tenant, NAME, before="", limit=2) == ids[:2]
    assert await backend.store.list_revisions(tenant, NAME, before=ids[1], limit=2) == ids[2:]
    assert await backend.store.list_revisions("nobody", NAME, before="", limit=2) == []
