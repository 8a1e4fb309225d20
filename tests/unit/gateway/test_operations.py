"""What operators see and do, and what happens when the queue is away."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pytest
from grpc_status import rpc_status

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1.submission_service_pb2 import GetSubmissionRequest, Submission
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryQueue
from cinnabar_gateway.handoff import Handoff
from cinnabar_gateway.records import QueuedTask
from tests.support.gateway_world import (
    OPERATOR,
    PARENT,
    STUDENT,
    World,
    credential,
    key_of,
    refusal_of,
    world,
)
from tests.support.waiting import until


def task(number: int) -> QueuedTask:
    """A task whose answer is ten bytes."""
    return QueuedTask(f"s{number}/q", "uni", "text", 1, 3, "r/q", b"0123456789")


class BrokenQueue(MemoryQueue):
    """A queue that may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = True
        self.calls = 0

    async def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """See Queue."""
        self.calls += 1
        if self.away:
            raise DependencyUnavailable("scheduler")
        await super().enqueue(tasks)


async def test_queues_are_counted(gateway: World) -> None:
    await gateway.submission()
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    response = await gateway.operations.ListQueues(pb.ListQueuesRequest(), metadata=OPERATOR)
    assert [(queue.queue, queue.ready) for queue in response.queues] == [
        ("choice", 1),
        ("free-text", 1),
        ("numeric", 1),
        ("text", 1),
    ]


async def test_dead_letters_are_walked_and_redriven(gateway: World) -> None:
    created = [await gateway.submission() for _ in range(3)]
    await until(lambda: len(gateway.queue.tasks) == 12, "the tasks are queued")
    gateway.queue.tasks.clear()
    for one in created:
        gateway.storage.dead_letter(key_of(one), "explain", reason="model is broken", attempts=6)
    request, seen = pb.ListDeadLettersRequest(page_size=2), list[pb.DeadLetter]()
    while True:
        page = await gateway.operations.ListDeadLetters(request, metadata=OPERATOR)
        seen += page.dead_letters
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [one.submission for one in seen] == [one.name for one in created]
    assert {(one.item, one.queue, one.attempts, one.reason) for one in seen} == {
        ("explain", "free-text", 6, "model is broken")
    }
    tasks = [pb.RedriveDeadLettersRequest.Task(submission=one.submission, item=one.item) for one in seen]
    unknown = pb.RedriveDeadLettersRequest.Task(submission=created[0].name, item="pick")
    foreign_id = pb.RedriveDeadLettersRequest.Task(submission=f"{PARENT}/submissions/s", item="pick")
    redrive = pb.RedriveDeadLettersRequest(tasks=[*tasks, unknown, foreign_id])
    foreign = credential("operator", "root", tenant="elsewhere")
    assert (await gateway.operations.RedriveDeadLetters(redrive, metadata=foreign)).redriven == 0
    assert (await gateway.operations.RedriveDeadLetters(redrive, metadata=OPERATOR)).redriven == 3
    await until(lambda: len(gateway.queue.tasks) == 3, "they are queued again")
    assert (await gateway.operations.RedriveDeadLetters(redrive, metadata=OPERATOR)).redriven == 0


async def test_a_submission_with_a_dead_letter_failed(gateway: World) -> None:
    created = await gateway.submission()
    for item in ("pick", "count", "name"):
        gateway.grade(created, item)
    gateway.storage.dead_letter(key_of(created), "explain", reason="broken", attempts=6)
    read = await gateway.submissions.GetSubmission(GetSubmissionRequest(name=created.name), metadata=STUDENT)
    assert read.state == Submission.State.FAILED


@dataclass(slots=True)
class Probe:
    """A dependency that is well, broken, or silent."""

    name: str
    behavior: str = "well"

    async def check(self) -> None:
        """See HealthProbe."""
        if self.behavior == "silent":
            await asyncio.Event().wait()
        if self.behavior == "broken":
            raise RuntimeError(self.name)


@pytest.mark.parametrize("behavior", ["broken", "silent"])
async def test_a_check_that_fails_or_hangs_is_unhealthy(behavior: str) -> None:
    probes = (Probe("storage"), Probe("scheduler", behavior))
    async with world(probes=probes, health_timeout_seconds=0.05) as made:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await made.operations.GetHealth(pb.GetHealthRequest())
        refusal = refusal_of(raised.value)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        assert refusal.metadata == {"dependency": "scheduler"}
        status, report = rpc_status.from_call(raised.value), pb.HealthReport()
        assert status is not None
        assert any(detail.Unpack(report) for detail in status.details)
        assert {check.name: check.status for check in report.checks} == {
            "storage": "healthy",
            "scheduler": "unhealthy",
        }
        probes[1].behavior = "well"
        report = await made.operations.GetHealth(pb.GetHealthRequest())
        assert (report.status, report.HasField("timestamp")) == ("healthy", True)


async def test_a_submission_is_accepted_while_the_queue_is_away() -> None:
    queue = BrokenQueue()
    async with world(queue=queue) as made:
        await made.assignment()
        await made.submission()
        await until(lambda: made.gateway.handoff.failed == 4, "the enqueue fails")
        queue.away = False
        await made.submission()
        await until(lambda: len(queue.tasks) == 4, "the next is queued")


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    queue = MemoryQueue()
    handoff = Handoff(queue, max_pending=3, max_pending_bytes=25, max_batch=2)
    handoff.offer([task(1), task(2)])
    handoff.offer([task(3)])  # three fit, but their answers do not
    assert (handoff.pending, handoff.dropped) == (2, 1)
    assert await handoff.run_once() == 2
    handoff.offer([task(4)])
    assert await handoff.run_once() == 1
    assert await handoff.run_once() == 0
    assert set(queue.tasks) == {("s1/q", 1), ("s2/q", 1), ("s4/q", 1)}


class HeldQueue(MemoryQueue):
    """Takes nothing before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.asked = 0

    async def enqueue(self, tasks: Sequence[QueuedTask]) -> None:
        """See Queue."""
        self.asked += 1
        await self.open.wait()
        await super().enqueue(tasks)


async def test_what_is_being_handed_over_when_a_gateway_stops_is_handed_over() -> None:
    queue = HeldQueue()
    async with Handoff(queue, max_batch=2).running() as handoff:
        handoff.offer([task(number) for number in range(5)])
        await until(lambda: queue.asked == 2, "both lanes are at it")
        queue.open.set()
    assert len(queue.tasks) == 5
    assert handoff.pending == 0


async def test_an_outage_long_ago_does_not_keep_a_gateway_that_stops_from_handing_over() -> None:
    queue = BrokenQueue()
    async with Handoff(queue, max_batch=2).running() as handoff:
        handoff.offer([task(9)])
        await until(lambda: handoff.failed == 1, "an enqueue has failed")
        queue.away = False
        handoff.offer([task(number) for number in range(5)])
    assert len(queue.tasks) == 5


async def test_a_gateway_that_stops_hands_over_what_waits() -> None:
    queue = MemoryQueue()
    async with Handoff(queue, max_batch=2).running() as handoff:
        handoff.offer([task(number) for number in range(5)])
    assert len(queue.tasks) == 5
