"""What every shard promises about erasures, and that one which is broken off anywhere is finished."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from cinnabar_common.errors import DependencyUnavailable, InvalidRequest, ResourceNotFound, StateForbids
from cinnabar_common.names import Bucket, bucket_of, new_id
from cinnabar_storage.adapters.memory.objects import MemoryObjects
from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.privacy.retention import Retention, parse_policy
from cinnabar_storage.records import NewSubmission
from cinnabar_storage.shards.sharding import Shards
from tests.contract.storage.conftest import Stored
from tests.support.storage_domain import dead_letter, grade, key, new_tenant, submission

KEY = "k" * 32


@dataclass
class ManualClock:
    """The time is what a test says."""

    now: float

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def erasures(shards: Shards) -> Erasures:
    return Erasures(shards, MemoryObjects(), subject_key=KEY)


def erasure_id(tenant: str, student: str) -> str:
    return new_id(bucket_of(tenant, student))


async def homework(stored: Stored, tenant: str, student: str) -> list[NewSubmission]:
    """Three submissions of two items each: graded, half graded, and open."""
    rows = [submission(tenant, student, items=("q1", "q2"), request_id=f"{student}-{n}") for n in range(3)]
    await stored.submissions.create(rows)
    await stored.tasks.commit([grade(rows[0], "q1"), grade(rows[0], "q2"), grade(rows[1], "q1")])
    await stored.tasks.commit([dead_letter(rows[1], "q2")])
    return rows


async def finish(shards: Shards, erasure: Erasures) -> None:
    for index in range(len(shards)):
        while await erasure.erase_one(index):
            pass


async def counts(stored: Stored) -> list[int]:
    """Of all tasks of both shards: the sum of what was accepted, and of where it is."""
    both = [await stored.tasks.count(index) for index in range(len(stored.shards))]
    return [sum(one.accepted for one in both), sum(sum(one[1:]) for one in both)]


async def test_everything_of_the_student_goes_and_nothing_else(stored: Stored) -> None:
    tenant, student = new_tenant(), "ann"
    mine, others = await homework(stored, tenant, student), await homework(stored, tenant, "bob")
    foreign = await homework(stored, new_tenant(), student)
    before = await counts(stored)
    wanted = erasure_id(tenant, student)
    erasure = erasures(stored.shards)
    asked, cancelled, _ = await erasure.begin(
        tenant, student, erasure_id=wanted, actor="operator/root", reason="asked to"
    )
    assert (asked.done, asked.student) == (False, student)
    assert cancelled == [((mine[2].submission_id, item), "text") for item in ("q1", "q2")]
    await finish(stored.shards, erasure)
    done = await erasure.get(tenant, wanted)
    assert (done.done, done.student, done.submissions, done.grades, done.objects) == (True, "", 3, 3, 0)
    assert (done.actor, done.reason, done.subject) == (
        "operator/root",
        "asked to",
        erasure.subject(tenant, student),
    )
    assert done.complete_time is not None
    assert done.complete_time >= done.create_time
    found, _ = await stored.submissions.get([key(row) for row in (*mine, *others, *foreign)], [])
    left = {row.submission_id for row in (*others, *foreign)}
    assert {one.row.submission_id for one in found} == left
    after = await counts(stored)
    assert before[0] - after[0] == before[1] - after[1] == 6
    # Its request ids are free again: nothing of it is known.
    again, _ = await stored.submissions.create([mine[0]._replace(submission_id=mine[0].submission_id)])
    assert again[0].status == 1


async def test_a_repetition_begins_nothing_new(stored: Stored) -> None:
    tenant = new_tenant()
    await homework(stored, tenant, "ann")
    wanted, erasure = erasure_id(tenant, "ann"), erasures(stored.shards)
    for _ in range(2):
        await erasure.begin(tenant, "ann", erasure_id=wanted, actor="operator/root", reason="asked to")
    await finish(stored.shards, erasure)
    done = await erasure.get(tenant, wanted)
    again, cancelled, _ = await erasure.begin(
        tenant, "ann", erasure_id=wanted, actor="operator/other", reason="other"
    )
    assert (again, cancelled) == (done, [])
    assert not await erasure.erase_one(0)
    assert not await erasure.erase_one(1)


async def test_who_has_nothing_gets_a_proof_too(stored: Stored) -> None:
    tenant = new_tenant()
    wanted, erasure = erasure_id(tenant, "nobody"), erasures(stored.shards)
    await erasure.begin(tenant, "nobody", erasure_id=wanted, actor="operator/root", reason="asked to")
    await finish(stored.shards, erasure)
    done = await erasure.get(tenant, wanted)
    assert (done.done, done.submissions, done.grades) == (True, 0, 0)


async def test_what_is_wrong_is_refused(stored: Stored) -> None:
    tenant = new_tenant()
    erasure = erasures(stored.shards)
    bucket = bucket_of(tenant, "ann")
    elsewhere = new_id(Bucket((bucket + 1) % 1024))
    with pytest.raises(InvalidRequest):
        await erasure.begin(tenant, "ann", erasure_id=elsewhere, actor="a", reason="r")
    keyless = Erasures(stored.shards, MemoryObjects(), subject_key="")
    with pytest.raises(StateForbids):
        await keyless.begin(tenant, "ann", erasure_id=new_id(bucket), actor="a", reason="r")
    wanted = new_id(bucket)
    await erasure.begin(tenant, "ann", erasure_id=wanted, actor="a", reason="r")
    await finish(stored.shards, erasure)
    for owner, name in ((new_tenant(), wanted), (tenant, new_id(bucket)), (tenant, "nonsense")):
        with pytest.raises(ResourceNotFound):
            await erasure.get(owner, name)


def test_a_subject_says_who_it_was_only_to_who_has_the_key() -> None:
    erasure = Erasures(Shards([MemoryShard()]), None, subject_key=KEY)
    subject = erasure.subject("t", "ann")
    assert subject != erasure.subject("t", "bob") != erasure.subject("tb", "ob")
    assert subject != Erasures(Shards([MemoryShard()]), None, subject_key="x" * 32).subject("t", "ann")
    assert len(bytes.fromhex(subject)) == sha256().digest_size


class Dying:
    """A shard that does so many calls of erasures, and then answers no more, before or after the last."""

    def __init__(self, inner: Any, budget: list[int], *, after: bool) -> None:
        self._inner = inner
        self._budget = budget
        self._after = after

    def __getattr__(self, name: str) -> Any:
        if name == "holding":

            def holding(*of: Any) -> Dying:
                return Dying(self._inner.holding(*of), self._budget, after=self._after)

            return holding
        method = getattr(self._inner, name)

        async def call(*args: Any) -> Any:
            self._budget[0] -= 1
            if self._budget[0] < 0 and not self._after:
                raise DependencyUnavailable("postgres")
            result = await method(*args)
            if self._budget[0] < 0:
                raise DependencyUnavailable("postgres")
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
async def test_whoever_comes_next_finishes(
    stored: Stored, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cinnabar_storage.privacy.erasures.BATCH", 2)
    # Nobody waits for the claim of who died.
    monkeypatch.setattr("cinnabar_storage.privacy.erasures.CLAIM_SECONDS", 0.0)
    monkeypatch.setattr("cinnabar_storage.adapters.sql.erasures.CLAIM_SECONDS", 0.0)
    tenant, student = new_tenant(), "ann"
    await homework(stored, tenant, student)
    others = await homework(stored, tenant, "bob")
    wanted = erasure_id(tenant, student)
    await erasures(stored.shards).begin(tenant, student, erasure_id=wanted, actor="o", reason="r")
    index = stored.shards.map.shard_of_id(wanted)
    assert index is not None
    died = 0
    while True:
        budget = [died]
        dying = Shards([Dying(shard, budget, after=after) for shard in stored.shards])  # pyright: ignore[reportArgumentType]
        try:
            await erasures(dying).erase_one(index)
            break
        except DependencyUnavailable:
            died += 1
    assert died >= 8
    done = await erasures(stored.shards).get(tenant, wanted)
    assert (done.done, done.submissions, done.grades) == (True, 3, 3)
    found, _ = await stored.submissions.get([key(row) for row in others], [])
    assert len(found) == 3


async def test_what_was_kept_long_enough_goes(stored: Stored, tmp_path: Path) -> None:
    """Two courses with rules of their own, a tenant that keeps everything, and a file that breaks."""
    short, long_, keeper = new_tenant(), new_tenant(), new_tenant()
    rows = {
        name: submission(tenant, course=course)
        for name, tenant, course in (
            ("gone", short, "net"),
            ("other course", short, "math"),
            ("kept by tenant", long_, "net"),
            ("kept for ever", keeper, "net"),
        )
    }
    await stored.submissions.create(list(rows.values()))
    await stored.tasks.commit([grade(row) for row in rows.values()])
    file = tmp_path / "retention.toml"
    file.write_text(
        f"default_days = 36500\n[tenants.{short}.courses]\nnet = {{days = 10}}\nmath = {{days = 100}}\n"
        f"[tenants.{long_}]\ndays = 100\n[tenants.{keeper}]\ndays = 0\n",
        "utf-8",
    )

    @asynccontextmanager
    async def alone() -> AsyncGenerator[bool]:
        yield True

    made: list[str] = []

    def mint(bucket: Bucket) -> str:
        made.append(new_id(bucket))
        return made[-1]

    clock = ManualClock(time.time() + 50 * 86400)
    retention = Retention(
        *(stored.shards, erasures(stored.shards), clock),
        file=file,
        leadership=alone,
        seconds=60,
        mint=mint,
    )
    assert await retention.run_once() == 1
    found, _ = await stored.submissions.get([key(row) for row in rows.values()], [])
    assert {one.row.submission_id for one in found} == {
        row.submission_id for name, row in rows.items() if name != "gone"
    }
    proof = await erasures(stored.shards).get(short, made[0])
    assert (proof.done, proof.submissions, proof.grades, proof.subject, proof.actor) == (
        *(True, 1, 1, ""),
        "retention",
    )
    # The file is read anew each time; one that is broken erases nothing.
    clock.now = time.time() + 50_000 * 86400
    file.write_text("default_days = -1", "utf-8")
    assert await retention.run_once() == 0
    file.write_text(f"[tenants.{short}]\ndays = 100", "utf-8")
    assert await retention.run_once() == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("default_days = '1'", "default_days must be"),
        ("days = 1", "days is not a setting"),
        ("[tenants.a]\ndays = 1.5", "tenants.a.days must be"),
        ("[tenants]\na = 1", "tenants.a must be a table"),
        ("[tenants.a.courses.c]\n", "tenants.a.courses.c.days must be"),
        ("[tenants.a.courses.c]\ndays = true", "tenants.a.courses.c.days must be"),
        ("default_days", "not TOML"),
    ],
)
def test_a_policy_says_what_is_wrong_with_it(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_policy(text)


def test_the_closest_rule_counts() -> None:
    policy = parse_policy(
        "default_days = 9\n[tenants.a]\ndays = 5\n[tenants.a.courses.c]\ndays = 0\n"
        "[tenants.b.courses.c]\ndays = 3"
    )
    assert [policy.days(*of) for of in (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("x", "y"))] == [
        *(0, 5, 3, 9, 9)
    ]
    assert policy.shortest() == 3
    assert parse_policy("").shortest() == 0
