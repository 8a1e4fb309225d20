"""What every store promises about regrades."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from cinnabar_common.errors import EtagMismatch, InvalidRequest, ResourceNotFound, StateForbids
from cinnabar_common.names import Bucket, new_id
from cinnabar_local import sql
from cinnabar_storage.etags import etag_of
from cinnabar_storage.records import (
    CommitResult,
    DeadLetterQuery,
    Micros,
    RedriveResult,
    SubmissionKey,
    TaskKey,
)
from cinnabar_storage.regrading.records import (
    RegradeFilter,
    RegradeKey,
    RegradeQuery,
    RegradeState,
    Tally,
    Wanted,
)
from tests.contract.storage.conftest import Stored
from tests.support.regrade_domain import PARENT, REGRADE, Course, spec
from tests.support.servers import ShardUrls
from tests.support.storage_domain import new_tenant

ACTOR = "instructor:prof"
OpenCourse = Callable[..., Awaitable[Course]]


@pytest.fixture
def course(stored: Stored) -> OpenCourse:
    async def opened(*, claim_seconds: float = 60.0) -> Course:
        made = Course(
            stored.shards, stored.submissions, stored.tasks, stored.assignments, claim_seconds=claim_seconds
        )
        return await made.open()

    return opened


async def test_a_regrade_opens_what_has_a_grade_again_and_the_new_grade_counts(course: OpenCourse) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    key = await net.opened()
    assert (await net.see(key)).tally == Tally(opened=4, open=4)
    assert await net.state(key) is RegradeState.GRADING
    found = await net.now(ann)
    assert [
        (task.item_id, task.generation, task.regrade_id, task.shadow) for task in sorted(found.tasks)
    ] == [
        ("q1", 2, key.regrade_id, False),
        ("q2", 2, key.regrade_id, False),
    ]
    assert await net.scores(ann) == {"q1": (1, 1.0), "q2": (1, 1.0)}  # count until others come
    for row in (ann, bob):
        for item in ("q1", "q2"):
            assert await net.grade(row, item, 2.0, generation=1) is CommitResult.ALREADY_GRADED
            assert await net.grade(row, item, 2.0, generation=2) is CommitResult.COMMITTED
    assert await net.scores(ann) == {"q1": (2, 2.0), "q2": (2, 2.0)}
    assert (await net.now(ann)).tasks == []
    assert await net.state(key) is RegradeState.DONE
    assert (await net.see(key)).tally == Tally(opened=4, graded=4)
    await net.conserved()


async def test_its_tasks_carry_their_priority_and_revision_and_no_deadline(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    newer = await net.revise(spec(points=4))
    key = await net.regrade(revision_id=newer)
    opened = (await net.regrades.advance(key, 1000)).opened
    assert {(task.item_id, task.priority, task.revision_id, task.generation) for task in opened} == {
        ("q1", REGRADE, newer, 2),
        ("q2", REGRADE, newer, 2),
    }
    assert {(task.answers, task.grade_by, task.submission_id) for task in opened} == {
        (ann.answers, None, ann.submission_id)
    }
    listed = [
        task
        for shard in net.shards
        for task in (await shard.read_primary(lambda copy: copy.open_tasks(TaskKey("", ""), 10_000)))[0]
        if task.tenant == net.tenant
    ]
    assert sorted(listed) == sorted(opened)


async def test_steps_are_bounded_and_open_each_task_once_whoever_makes_them(course: OpenCourse) -> None:
    net = await course()
    rows = await net.submit(*(f"s{number}" for number in range(12)))
    key = await net.regrade()
    opened: list[tuple[str, str]] = []
    for _ in range(20):
        rounds = await asyncio.gather(*(net.regrades.advance(key, 4) for _ in range(3)))
        assert all(len(one.opened) <= 4 for one in rounds)
        opened += [(task.submission_id, task.item_id) for one in rounds for task in one.opened]
        if not all(one.busy for one in rounds):
            break
    assert sorted(opened) == sorted((row.submission_id, item) for row in rows for item in ("q1", "q2"))
    assert (await net.see(key)).tally == Tally(opened=24, open=24)


async def test_when_buckets_change_a_part_begins_anew_and_opens_nothing_twice(
    course: OpenCourse, storage_shards: list[ShardUrls]
) -> None:
    """In memory no buckets ever change; what is promised is the same."""

    async def buckets_change() -> None:
        for shard in storage_shards:
            async with sql.connected(shard.primary_url) as connection:
                await connection.execute("UPDATE buckets SET epoch = epoch")

    net = await course()
    rows = await net.submit(*(f"s{number}" for number in range(8)))
    [waiting] = await net.submit("waiting", grade=None)
    key = await net.regrade(shadow=True)
    await net.regrades.advance(key, 8)
    for row in rows:
        await net.grade(row, "q1", 2.0, generation=2)
    await buckets_change()
    await net.settle(key, limit=4)
    for row in rows:
        await net.grade(row, "q1", 2.0, generation=2)
        await net.grade(row, "q2", 2.0, generation=2)
    assert (await net.see(key)).tally == Tally(opened=16, graded=16, skipped=2)
    await net.regrades.decide(key, PARENT, Wanted.PROMOTE, ACTOR)
    await net.regrades.advance(key, 4)
    await buckets_change()
    await net.settle(key, limit=4)
    assert (await net.see(key)).tally == Tally(opened=16, graded=16, skipped=2, promoted=16)
    assert {scores for row in rows for scores in (await net.scores(row)).values()} == {(3, 2.0)}
    assert await net.scores(waiting) == {}
    await net.conserved()


async def test_a_submission_of_more_items_than_a_step_takes_is_opened_whole(course: OpenCourse) -> None:
    net = await course()
    await net.submit("ann", "bob", "cid")
    key = await net.opened(limit=1)
    assert (await net.see(key)).tally == Tally(opened=6, open=6)


async def test_the_filter_says_which(course: OpenCourse) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    [cid] = await net.submit("cid", grade=0.5)
    cases = {
        RegradeFilter(authors=("ann", "nobody")): {(ann, "q1"), (ann, "q2")},
        RegradeFilter(items=("q2",)): {(ann, "q2"), (bob, "q2"), (cid, "q2")},
        RegradeFilter(score_below=0.5): {(cid, "q1"), (cid, "q2")},
        RegradeFilter(created_before=bob.create_time): {(ann, "q1"), (ann, "q2")},
        RegradeFilter(created_after=Micros(bob.create_time + 1)): {(cid, "q1"), (cid, "q2")},
        RegradeFilter(authors=("bob", "cid"), items=("q1",), score_below=0.3): {(cid, "q1")},
    }
    generations: Counter[tuple[str, str]] = Counter()
    for wanted, meant in cases.items():
        key = await net.opened(wanted, shadow=True)
        view = await net.see(key)
        assert (view.regrade.filter, view.tally) == (wanted, Tally(opened=len(meant), open=len(meant)))
        for row, item in meant:
            generations[row.author, item] += 1
            generation = 1 + generations[row.author, item]
            assert await net.grade(row, item, 0.1, generation=generation) is CommitResult.COMMITTED
        assert (await net.see(key)).tally.graded == len(meant)
    await net.conserved()


async def test_what_cannot_be_opened_is_skipped(course: OpenCourse) -> None:
    net = await course()
    [waiting] = await net.submit("waiting", grade=None)
    [half] = await net.submit("half", grade=None)
    await net.grade(half, "q1", 1.0)
    [done] = await net.submit("done")
    numeric = await net.revise(spec(numeric=["q2"]))
    key = await net.opened(revision_id=numeric)
    # Of the new revision only q1 is graded in the same queue; two of three have a grade of it.
    assert (await net.see(key)).tally == Tally(opened=2, open=2, skipped=4)
    assert {task.generation for task in (await net.now(waiting)).tasks} == {1}
    assert sorted(task.generation for task in (await net.now(half)).tasks) == [1, 2]
    assert {task.item_id for task in (await net.now(done)).tasks} == {"q1"}
    again = await net.opened()
    assert (await net.see(again)).tally == Tally(opened=1, open=1, skipped=5)
    await net.conserved()


async def test_submissions_after_the_regrade_are_not_meant(course: OpenCourse) -> None:
    net = await course()
    await net.submit("ann")
    key = await net.regrade()
    await net.submit("late")
    await net.settle(key)
    assert (await net.see(key)).tally.opened == 2


async def test_a_shadow_changes_nothing_that_anybody_sees_until_it_is_promoted(course: OpenCourse) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    before = [await net.now(ann), await net.now(bob)]
    key = await net.opened(shadow=True)
    assert [await net.now(ann), await net.now(bob)] == before
    for row in (ann, bob):
        for item in ("q1", "q2"):
            await net.grade(row, item, 1.5, generation=2)
    assert [await net.now(ann), await net.now(bob)] == before
    assert await net.state(key) is RegradeState.READY
    await net.conserved()
    decided, _ = await net.regrades.decide(key, PARENT, Wanted.PROMOTE, ACTOR)
    assert decided.state is RegradeState.PROMOTING
    assert [await net.now(ann), await net.now(bob)] == before
    await net.settle(key, limit=1)
    assert (await net.see(key)).tally == Tally(opened=4, graded=4, promoted=4)
    assert await net.state(key) is RegradeState.PROMOTED
    assert await net.scores(bob) == {"q1": (3, 1.5), "q2": (3, 1.5)}
    again, _ = await net.regrades.decide(key, PARENT, Wanted.PROMOTE, ACTOR)
    assert again.state is RegradeState.PROMOTED
    await net.conserved()


async def test_a_grade_that_came_in_between_is_not_promoted_over(course: OpenCourse) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    shadow = await net.opened(RegradeFilter(items=("q1",)), shadow=True)
    for row in (ann, bob):
        await net.grade(row, "q1", 0.0, generation=2)
    live = await net.opened(RegradeFilter(authors=("ann",), items=("q1",)))
    await net.grade(ann, "q1", 2.0, generation=3)
    await net.opened(RegradeFilter(authors=("bob",), items=("q1",)))  # still open when it is promoted
    assert await net.state(live) is RegradeState.DONE
    await net.regrades.decide(shadow, PARENT, Wanted.PROMOTE, ACTOR)
    await net.settle(shadow)
    view = await net.see(shadow)
    assert (view.tally.promoted, view.tally.overtaken) == (0, 2)
    assert (await net.scores(ann))["q1"] == (3, 2.0)
    assert await net.grade(bob, "q1", 1.7, generation=3) is CommitResult.COMMITTED
    assert (await net.scores(bob))["q1"] == (3, 1.7)
    await net.conserved()


async def test_promoting_gives_up_what_a_shadow_could_not_grade(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    key = await net.opened(shadow=True)
    await net.grade(ann, "q1", 2.0, generation=2)
    await net.give_up(ann, "q2", generation=2)
    view = await net.see(key)
    assert (view.state, view.failed) == (RegradeState.READY, 1)
    query = DeadLetterQuery(net.tenant, "", TaskKey("", ""), 10)
    [letter] = (await net.tasks.dead_letters(query)).letters
    assert (letter.task.item_id, letter.task.shadow, letter.task.regrade_id) == ("q2", True, key.regrade_id)
    await net.regrades.decide(key, PARENT, Wanted.PROMOTE, ACTOR)
    await net.settle(key)
    view = await net.see(key)
    assert (view.tally.promoted, view.failed) == (1, 1)
    assert await net.scores(ann) == {"q1": (3, 2.0), "q2": (1, 1.0)}
    assert (await net.tasks.dead_letters(query)).letters == []
    await net.conserved()


async def test_a_task_that_a_regrade_gave_up_can_be_redriven_or_regraded(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    first = await net.opened()
    for item in ("q1", "q2"):
        await net.give_up(ann, item, generation=2)
    assert await net.state(first) is RegradeState.DONE
    assert await net.scores(ann) == {"q1": (1, 1.0), "q2": (1, 1.0)}
    key = TaskKey(ann.submission_id, "q1")
    [result], [redriven], _ = await net.tasks.redrive(net.tenant, [key], "operator")
    assert (result, redriven.priority, redriven.generation) == (RedriveResult.REDRIVEN, REGRADE, 2)
    second = await net.opened()
    assert (await net.see(second)).tally == Tally(opened=1, open=1, skipped=1)
    assert await net.grade(ann, "q1", 1.5, generation=2) is CommitResult.COMMITTED
    assert await net.grade(ann, "q2", 1.7, generation=3) is CommitResult.COMMITTED
    assert await net.scores(ann) == {"q1": (2, 1.5), "q2": (3, 1.7)}
    assert (await net.see(first)).failed == 1
    await net.conserved()


async def test_a_person_has_the_last_word_whatever_regrades_left_behind(course: OpenCourse) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    only = RegradeFilter(items=("q1",))
    shadow = await net.opened(only, shadow=True)
    for row in (ann, bob):
        await net.grade(row, "q1", 0.5, generation=2)
    # A task of generation 3 is left of each: one cancelled, one an open shadow.
    left = await net.opened(only._replace(authors=("ann",)))
    await net.regrades.decide(left, PARENT, Wanted.DISCARD, ACTOR)
    await net.settle(left)
    await net.opened(only._replace(authors=("bob",)), shadow=True)
    await net.regrades.decide(shadow, PARENT, Wanted.PROMOTE, ACTOR)
    await net.settle(shadow)
    for row in (ann, bob):
        assert (await net.scores(row))["q1"] == (4, 0.5)
        assert await net.override(row, "q1", 2.0, etag=etag_of(await net.now(row))) == 5
        assert (await net.scores(row))["q1"] == (5, 2.0)
        assert await net.grade(row, "q1", 0.0, generation=3) is CommitResult.SUPERSEDED
    later = await net.opened()
    assert (await net.see(later)).tally == Tally(opened=2, open=2, skipped=2)  # not over a person
    assert await net.reopen(ann, "q1") == 1  # unless somebody says so
    await net.conserved()


async def test_a_person_forestalls_a_regrade(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    key = await net.opened(RegradeFilter(items=("q1",)))
    assert await net.override(ann, "q1", 2.0) == 2
    assert await net.grade(ann, "q1", 0.0, generation=2) is CommitResult.ALREADY_GRADED
    view = await net.see(key)
    assert (view.state, view.tally, view.failed) == (RegradeState.DONE, Tally(opened=1), 1)
    await net.conserved()


@pytest.mark.parametrize("shadow", [True, False])
async def test_a_discarded_regrade_leaves_no_trace_but_its_history(course: OpenCourse, shadow: bool) -> None:
    net = await course()
    ann, bob = await net.submit("ann", "bob")
    key = await net.opened(shadow=shadow)
    await net.grade(ann, "q1", 2.0, generation=2)
    await net.give_up(ann, "q2", generation=2)
    decided, _ = await net.regrades.decide(key, PARENT, Wanted.DISCARD, ACTOR)
    assert decided.state is RegradeState.DISCARDED
    cancelled = (await net.regrades.advance(key, 1000)).cancelled
    assert sorted(one[:2] for one in cancelled) == sorted(
        [(ann.submission_id, "q2"), (bob.submission_id, "q1"), (bob.submission_id, "q2")]
    )
    await net.settle(key)
    view = await net.see(key)
    assert (view.tally.open, view.tally.graded, view.failed) == (0, 1, 3)
    assert await net.grade(bob, "q1", 2.0, generation=2) is CommitResult.SUPERSEDED
    assert await net.scores(bob) == {"q1": (1, 1.0), "q2": (1, 1.0)}
    assert (await net.scores(ann))["q1"] == ((1, 1.0) if shadow else (2, 2.0))
    await net.conserved()
    again = await net.opened()
    assert (await net.see(again)).tally == Tally(opened=4, open=4)
    assert await net.grade(bob, "q1", 2.0, generation=3) is CommitResult.COMMITTED
    await net.conserved()


async def test_a_regrade_is_discarded_while_it_opens(course: OpenCourse) -> None:
    net = await course()
    await net.submit(*(f"s{number}" for number in range(6)))
    key = await net.regrade(shadow=True)
    stale = await net.see(key)
    await net.regrades.advance(key, 2)
    await net.regrades.decide(key, PARENT, Wanted.DISCARD, ACTOR)
    await net.settle(key)
    # Somebody who has not heard of it goes on opening, and finds that it is too late.
    late = [await shard.regrades.open(stale.regrade, {net.revision_id: {}}, 10) for shard in net.shards]
    assert all(step.done and not step.opened for step in late)
    view = await net.see(key)
    assert (view.state, view.tally.open, view.failed) == (RegradeState.DISCARDED, 0, view.tally.opened)
    await net.conserved()


async def test_its_state_forbids_what_makes_no_sense(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    shadow = await net.regrade(RegradeFilter(items=("q1",)), shadow=True)

    async def refused(key: RegradeKey, wanted: Wanted) -> str:
        with pytest.raises(StateForbids) as raised:
            await net.regrades.decide(key, PARENT, wanted, ACTOR)
        return raised.value.metadata["state"]

    assert await refused(shadow, Wanted.PROMOTE) == "OPENING"
    await net.settle(shadow)
    assert await refused(shadow, Wanted.PROMOTE) == "GRADING"
    await net.grade(ann, "q1", 2.0, generation=2)
    live = await net.opened(RegradeFilter(items=("q2",)))
    assert await refused(live, Wanted.PROMOTE) == "GRADING"
    await net.grade(ann, "q2", 2.0, generation=2)
    assert await refused(live, Wanted.PROMOTE) == "DONE"
    assert await refused(live, Wanted.DISCARD) == "DONE"
    await net.regrades.decide(shadow, PARENT, Wanted.PROMOTE, ACTOR)
    assert await refused(shadow, Wanted.DISCARD) == "PROMOTING"
    await net.settle(shadow)
    assert await refused(shadow, Wanted.DISCARD) == "PROMOTED"
    discarded = await net.regrade(shadow=True)
    await net.regrades.decide(discarded, PARENT, Wanted.DISCARD, ACTOR)
    await net.regrades.decide(discarded, PARENT, Wanted.DISCARD, ACTOR)
    assert await refused(discarded, Wanted.PROMOTE) == "DISCARDED"


async def test_of_two_decisions_at_once_one_holds(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    key = await net.opened(RegradeFilter(items=("q1",)), shadow=True)
    await net.grade(ann, "q1", 2.0, generation=2)
    decisions = [Wanted.PROMOTE, Wanted.DISCARD] * 3
    results = await asyncio.gather(
        *(net.regrades.decide(key, PARENT, wanted, ACTOR) for wanted in decisions), return_exceptions=True
    )
    await net.settle(key)
    held = {one for one, result in zip(decisions, results, strict=True) if not isinstance(result, Exception)}
    assert all(isinstance(one, StateForbids) for one in results if isinstance(one, Exception))
    assert len(held) == 1
    promoted = held == {Wanted.PROMOTE}
    assert (await net.scores(ann))["q1"] == ((3, 2.0) if promoted else (1, 1.0))


async def test_one_submission_is_regraded_at_once(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    assert await net.reopen(ann, "q1", "unknown") == 1
    with pytest.raises(StateForbids):
        await net.reopen(ann, "q1")
    assert await net.reopen(ann) == 1
    with pytest.raises(StateForbids):
        await net.reopen(ann)
    await net.grade(ann, "q1", 2.0, generation=2)
    assert await net.scores(ann) == {"q1": (2, 2.0), "q2": (1, 1.0)}
    [open_still] = (await net.now(ann)).tasks
    assert (open_still.item_id, open_still.generation, open_still.regrade_id) == ("q2", 2, "")
    await net.conserved()


async def test_an_etag_that_is_not_the_current_one_is_refused(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    etag = etag_of(await net.now(ann))
    assert await net.reopen(ann, "q1", etag=etag) == 1
    for stale in (etag, '"nonsense"'):
        with pytest.raises(EtagMismatch):
            await net.reopen(ann, "q2", etag=stale)
    shadow = await net.opened(shadow=True)  # which nobody sees
    assert (await net.see(shadow)).tally.opened == 1
    await net.grade(ann, "q2", 2.0, generation=2)
    assert await net.reopen(ann, "q2", etag=etag_of(await net.now(ann))) == 1


async def test_what_waits_for_its_first_grade_cannot_be_regraded(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann", grade=None)
    with pytest.raises(StateForbids):
        await net.reopen(ann)


async def test_a_student_cannot_cancel_a_regrade(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann", grade=None)
    await net.grade(ann, "q1", 1.0)
    await net.reopen(ann)
    key = SubmissionKey(net.tenant, ann.submission_id)
    cancelled, _, _ = await net.submissions.cancel([key], "student:ann")
    assert [(task.item_id, task.generation) for task in cancelled] == [("q2", 1)]
    assert await net.grade(ann, "q1", 2.0, generation=2) is CommitResult.COMMITTED
    await net.conserved()


async def test_others_know_nothing_of_it(course: OpenCourse) -> None:
    net = await course()
    [ann] = await net.submit("ann")
    key = await net.regrade()
    other = await course()
    foreign = RegradeKey(other.tenant, key.regrade_id)
    for act in (
        net.regrades.get(foreign, PARENT),
        net.regrades.get(key, ("net", "a2")),
        net.regrades.get(RegradeKey(net.tenant, "nonsense"), PARENT),
        net.regrades.report(foreign, PARENT, 0.5),
        net.regrades.advance(foreign, 10),
        net.regrades.decide(foreign, PARENT, Wanted.DISCARD, ACTOR),
        net.regrades.decide(key, ("net", "a2"), Wanted.DISCARD, ACTOR),
        other.reopen(ann),
        net.reopen(ann._replace(submission_id=new_id(Bucket(3)))),
        net.reopen(ann._replace(submission_id="nonsense")),
    ):
        with pytest.raises(ResourceNotFound):
            await act
    assert await other.regrades.list(RegradeQuery(other.tenant, *PARENT, "", 10)) == []


async def test_regrades_are_listed_newest_first(course: OpenCourse) -> None:
    net = await course()
    keys = [await net.regrade() for _ in range(3)]
    ids = [key.regrade_id for key in reversed(keys)]
    query = RegradeQuery(net.tenant, *PARENT, "", 2)
    assert [view.regrade.regrade_id for view in await net.regrades.list(query)] == ids[:2]
    rest = await net.regrades.list(query._replace(before=ids[1]))
    assert [view.regrade.regrade_id for view in rest] == ids[2:]


async def test_an_id_of_another_bucket_is_refused(course: OpenCourse) -> None:
    net = await course()
    view = await net.see(await net.regrade())
    wrong = view.regrade._replace(regrade_id=new_id(Bucket(1)), tenant=new_tenant(), course="other")
    with pytest.raises(InvalidRequest):
        await net.regrades.create(wrong)


async def test_a_repeated_create_is_one_regrade(course: OpenCourse) -> None:
    net = await course()
    key = await net.opened()
    view = await net.see(key)
    again, _ = await net.regrades.create(view.regrade._replace(reason="other"))
    assert again == view
    assert len(await net.regrades.list(RegradeQuery(net.tenant, *PARENT, "", 10))) == 1


async def test_what_nobody_advances_is_claimed_once(course: OpenCourse) -> None:
    patient, net = await course(), await course(claim_seconds=0.0)
    kept, dropped = await patient.regrade(), await net.regrade()
    patient.tenant = net.tenant
    claims = await asyncio.gather(*(patient.regrades.claim(100) for _ in range(3)))
    claimed = [key for keys in claims for key in keys]
    assert claimed.count(dropped) == 1
    assert kept not in claimed
    await net.settle(dropped)
    assert dropped not in await net.regrades.claim(100)
