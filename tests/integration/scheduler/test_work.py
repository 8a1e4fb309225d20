"""The work stream of a real scheduler process."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from cinnabar.grader.v1.grade_pb2 import CriterionScore, Grade
from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as pb
from cinnabar_common.errors import DOMAIN
from tests.support.scheduler_process import Shared, Suite, queued
from tests.support.scheduler_worker import GRADE, ScriptedWorker, failed, graded, released, worker
from tests.support.waiting import until

NAN = float("nan")
CRITERIA = GRADE.criteria


async def leased(shared: Shared, one: ScriptedWorker, count: int) -> list[pb.LeasedTask]:
    """New tasks, leased to a worker."""
    await shared.scheduler.enqueue(shared.storage.add_tasks(count, revision=shared.storage.add_revision()))
    return await one.take(count)


def reason_of(error: BaseException | None) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    assert isinstance(error, grpc.aio.AioRpcError)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == DOMAIN
    return error.code(), info.reason, dict(info.metadata)


async def test_a_task_is_leased_graded_and_committed(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        tasks = shared.storage.add_tasks(3, revision=shared.storage.add_revision())
        assert await shared.scheduler.enqueue(tasks) == 3
        assert await shared.scheduler.enqueue(tasks) == 0
        leases = await one.take(3)
        assert {lease.task for lease in leases} == set(shared.storage.tasks)
        assert {lease.attempt for lease in leases} == {1}
        assert leases[0].answer.text == "an answer"
        assert one.items[leases[0].item_key].points == 5
        assert await one.grade(leases) == [pb.Receipt.COMMITTED] * 3
        assert shared.storage.graded == set(shared.storage.tasks)
        assert {task.worker for task in shared.storage.tasks.values()} == {"w1"}
        stats = await shared.scheduler.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)
        await one.leave()
    assert '"level": "error"' not in shared.scheduler.log()


async def test_waiting_work_goes_out_as_credits_come_in(shared: Shared) -> None:
    await shared.scheduler.enqueue(shared.storage.add_tasks(10, revision=shared.storage.add_revision()))
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        assert len(await one.take(4)) == 4
        stats = await shared.scheduler.stats()
        assert (stats.ready, stats.leased, stats.workers, stats.credits) == (6, 4, 1, 0)
        assert stats.oldest_age.ToMilliseconds() >= 0
        await one.take(6)
        await one.ready(5)
        await one.grade(one.leased)
        assert (await shared.scheduler.stats()).credits == 5
        assert len(one.leased) == 10


async def test_the_task_of_a_killed_worker_is_elsewhere_at_once(shared: Shared) -> None:
    async with worker(shared.scheduler.target, "second") as second:
        await second.hello()
        async with worker(shared.scheduler.target, "first") as first:
            await first.hello()
            await shared.scheduler.enqueue(
                shared.storage.add_tasks(1, revision=shared.storage.add_revision())
            )
            (lease,) = await first.take(1)
            await second.ready(1)
        await second.until(lambda: second.leased, "the task of the first worker", seconds=1)
        again = second.leased[0]
        assert (again.task, again.attempt) == (lease.task, 2)
        assert int(again.lease_token.partition("-")[0]) > int(lease.lease_token.partition("-")[0])
        assert await second.grade([again]) == [pb.Receipt.COMMITTED]
    assert '"level": "error"' not in shared.scheduler.log()


async def test_a_silent_worker_loses_its_lease_and_a_late_report_is_stale(parts: Suite) -> None:
    scheduler = await parts.scheduler(lease_seconds="1")
    async with worker(scheduler.target, "silent") as silent, worker(scheduler.target, "other") as other:
        await silent.hello()
        await other.hello()
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=parts.storage.add_revision()))
        (lease,) = await silent.take(1)
        await other.ready(1)
        await other.until(lambda: other.leased, "the expired task", seconds=4)
        await silent.until(lambda: silent.cancelled == {lease.lease_token}, "a cancellation")
        assert await silent.grade([lease]) == [pb.Receipt.STALE_LEASE]
        assert await other.grade(other.leased) == [pb.Receipt.COMMITTED]
        assert parts.storage.tasks[lease.task].worker == "other"


async def test_heartbeats_keep_a_lease(parts: Suite) -> None:
    scheduler = await parts.scheduler(lease_seconds="1")
    async with worker(scheduler.target, "alive") as alive, worker(scheduler.target, "witness") as witness:
        await alive.hello()
        await witness.hello()
        assert alive.welcome is not None
        assert alive.welcome.lease_duration.ToMilliseconds() == 1000
        revision = parts.storage.add_revision()
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=revision))
        (kept,) = await alive.take(1)
        await scheduler.enqueue(parts.storage.add_tasks(1, revision=revision, text="forgotten"))
        (forgotten,) = await alive.take(1)
        await witness.ready(2)

        async def beat() -> bool:
            await alive.heartbeat([kept.lease_token])
            return bool(witness.leased)

        for _ in range(40):
            if await beat():
                break
            try:
                await witness.until(lambda: witness.leased, "the forgotten one", seconds=0.1)
            except AssertionError:
                continue
        assert [lease.task for lease in witness.leased] == [forgotten.task]
        assert await alive.grade([kept]) == [pb.Receipt.COMMITTED]


async def test_a_heartbeat_for_a_lease_that_is_not_held_is_answered(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await one.heartbeat(["1-nobody"])
        await one.until(lambda: one.cancelled == {"1-nobody"}, "a cancellation")


async def test_released_and_stale(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await one.take(1)
        receipts = await one.report(released(lease.lease_token), graded("17-stale"))
        assert receipts == [pb.Receipt.RETURNED, pb.Receipt.STALE_LEASE]
        assert await one.report(graded(lease.lease_token)) == [pb.Receipt.STALE_LEASE]
        (again,) = await one.take(1)
        assert (again.task, again.attempt) == (lease.task, 1)


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        (code_pb2.INTERNAL, 3),
        (code_pb2.UNKNOWN, 3),
        (code_pb2.OK, 3),
        (99, 3),
        (code_pb2.UNAVAILABLE, 5),
        (code_pb2.DEADLINE_EXCEEDED, 5),
        (code_pb2.FAILED_PRECONDITION, 1),
        (code_pb2.UNIMPLEMENTED, 1),
    ],
)
async def test_failures_are_tried_again_by_their_class_and_become_a_dead_letter(
    shared: Shared, code: int, attempts: int
) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        receipts: list[int] = []
        for attempt in range(1, attempts + 1):
            (lease,) = await one.take(1)
            assert lease.attempt == attempt
            receipts += await one.report(failed(lease.lease_token, f"failure {attempt}", code=code))
        assert receipts == [pb.Receipt.RETRYING] * (attempts - 1) + [pb.Receipt.DEAD_LETTERED]
        (task,) = shared.storage.tasks.values()
        assert task.dead is not None
        assert (task.dead.reason, task.dead.attempts) == (f"failure {attempts}", attempts)
        stats = await shared.scheduler.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)


MALFORMED = {
    "no result": {},
    "more than the maximum": {"grade": Grade(score=6, max_score=5, criteria=CRITERIA)},
    "negative": {"grade": Grade(score=-1, max_score=5, criteria=CRITERIA)},
    "not a number": {"grade": Grade(score=NAN, max_score=5, criteria=CRITERIA)},
    "no maximum": {"grade": Grade(score=4, max_score=float("inf"), criteria=CRITERIA)},
    "no criteria": {"grade": Grade(score=4, max_score=5)},
    "a criterion that is not a number": {
        "grade": Grade(score=4, max_score=5, criteria=[CriterionScore(score=NAN, max_score=5)])
    },
    "too large": {"grade": Grade(score=4, max_score=5, criteria=CRITERIA, feedback="x" * 300_000)},
}


@pytest.mark.parametrize("result", [pytest.param(result, id=name) for name, result in MALFORMED.items()])
async def test_a_malformed_outcome_is_rejected_and_tried_again(
    shared: Shared, result: dict[str, Grade]
) -> None:
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        bad, good = await leased(shared, one, 2)
        receipts = await one.report(
            pb.Outcome(lease_token=bad.lease_token, grade=result.get("grade")), graded(good.lease_token)
        )
        assert receipts == [pb.Receipt.REJECTED, pb.Receipt.COMMITTED]
        assert shared.storage.graded == {good.task}
        (again,) = await one.take(1)
        assert (again.task, again.attempt) == (bad.task, 2)
        assert await one.grade([again]) == [pb.Receipt.COMMITTED]


HELLO = pb.WorkRequest(hello=pb.Hello(worker="bad", queues=["free-text"]))
VIOLATIONS = {
    "hello first": [pb.WorkRequest(ready=pb.Ready(queue="free-text", credits=1))],
    "hello first (heartbeat)": [pb.WorkRequest(heartbeat=pb.Heartbeat(lease_tokens=["1-a"]))],
    "hello first (report)": [pb.WorkRequest(report=pb.Report(outcomes=[graded("1-a")]))],
    "a message says something": [pb.WorkRequest()],
    "hello only once": [HELLO, HELLO],
    "hello.worker must be": [pb.WorkRequest(hello=pb.Hello(worker="Bad Name", queues=["free-text"]))],
    "hello.queues must be": [pb.WorkRequest(hello=pb.Hello(worker="bad", queues=["free_text"]))],
    "hello names 1 to 64 queues": [pb.WorkRequest(hello=pb.Hello(worker="bad"))],
    "ready only for a queue of the hello": [HELLO, pb.WorkRequest(ready=pb.Ready(queue="x", credits=1))],
    "ready grants at least 1 credit": [HELLO, pb.WorkRequest(ready=pb.Ready(queue="free-text"))],
    "at most 4096 credits open on a queue": [
        HELLO,
        pb.WorkRequest(ready=pb.Ready(queue="free-text", credits=4097)),
    ],
    "at most 1000 outcomes in a report": [
        HELLO,
        pb.WorkRequest(report=pb.Report(outcomes=[graded("1-a")] * 1001)),
    ],
}


async def test_a_worker_that_breaks_the_protocol_harms_only_itself(shared: Shared) -> None:
    async with worker(shared.scheduler.target, "good") as good:
        await good.hello()
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
        (lease,) = await good.take(1)
        for rule, messages in VIOLATIONS.items():
            async with worker(shared.scheduler.target, "bad") as bad:
                for message in messages:
                    await bad.send(message)
                code, reason, metadata = reason_of(await bad.end(why=rule))
                assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WORKER_PROTOCOL_VIOLATION")
                assert metadata["rule"].startswith(rule.partition(" (")[0])
        assert await good.grade([lease]) == [pb.Receipt.COMMITTED]
    assert '"level": "error"' not in shared.scheduler.log()


async def test_leases_of_a_worker_that_breaks_the_protocol_go_back(shared: Shared) -> None:
    await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
    async with worker(shared.scheduler.target, "good") as good, worker(shared.scheduler.target, "bad") as bad:
        await bad.hello()
        (lease,) = await bad.take(1)
        await good.hello()
        await good.ready(1)
        await bad.send(HELLO)
        await bad.end()
        await good.until(lambda: good.leased, "the lease of the bad worker", seconds=1)
        assert good.leased[0].task == lease.task


async def test_a_task_without_item_becomes_a_dead_letter_and_holds_up_nobody(shared: Shared) -> None:
    orphans = shared.storage.add_tasks(1, revision="0" * 26 + "-001")
    await shared.scheduler.enqueue(orphans)
    await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=shared.storage.add_revision()))
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await one.ready(10)
        await one.until(lambda: one.leased, "the good task")
        await one.grade(one.leased)
        orphan = shared.storage.tasks[f"{orphans[0].submission_id}/q1"]
        await until(lambda: orphan.dead is not None, "a dead letter")
        assert orphan.dead is not None
        assert "no such item" in orphan.dead.reason
        assert len(one.leased) == 1


async def test_an_unreadable_answer_becomes_a_dead_letter_and_holds_up_nobody(shared: Shared) -> None:
    (bad,) = shared.storage.add_tasks(1, revision=shared.storage.add_revision())
    broken = queued(bad)
    broken.answer = b"\xff\xff\xff"
    await shared.scheduler.queue.Enqueue(queue_pb.EnqueueRequest(tasks=[broken]), timeout=5)
    async with worker(shared.scheduler.target) as one:
        await one.hello()
        await one.ready(10)
        task = shared.storage.tasks[broken.task]
        await until(lambda: task.dead is not None, "a dead letter")
        await shared.scheduler.enqueue(shared.storage.add_tasks(1, revision=bad.revision_id))
        await one.until(lambda: one.leased, "the good task")
        assert one.leased[0].item_key in one.items
        assert await one.grade(one.leased) == [pb.Receipt.COMMITTED]


async def test_large_answers_fit_the_limits_of_any_client(shared: Shared) -> None:
    async with worker(shared.scheduler.target) as one:  # takes messages of 4 MiB, the default of gRPC
        await one.hello()
        await one.ready(60)
        await shared.scheduler.enqueue(
            shared.storage.add_tasks(60, revision=shared.storage.add_revision(), text="x" * 256 * 1024)
        )
        await one.until(lambda: len(one.leased) == 60, "all of them", seconds=10)


async def test_several_queues_on_one_stream_have_credits_of_their_own(shared: Shared) -> None:
    revision = shared.storage.add_revision()
    async with worker(shared.scheduler.target) as one:
        await one.hello("free-text", "numeric")
        for queue in ("free-text", "numeric"):
            await shared.scheduler.enqueue(shared.storage.add_tasks(3, revision=revision, queue=queue))
        await one.take(2, "numeric")
        await one.take(1, "free-text")
        assert [lease.queue for lease in one.leased] == ["numeric", "numeric", "free-text"]
        stats = {queue: await shared.scheduler.stats(queue) for queue in ("free-text", "numeric")}
        assert {queue: (each.ready, each.credits) for queue, each in stats.items()} == {
            "free-text": (2, 0),
            "numeric": (1, 0),
        }
        await one.ready(5, "numeric")
        await one.until(lambda: len(one.leased) == 4, "the last numeric one")
        await one.take(2, "free-text")
        assert await one.grade(one.leased) == [pb.Receipt.COMMITTED] * 6
        assert (await shared.scheduler.stats("numeric")).credits == 4
