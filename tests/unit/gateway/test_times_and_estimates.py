"""When a submission may be graded, and when its grades are to be expected."""

import asyncio
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_gateway.adapters.memory import MemoryQueue
from cinnabar_gateway.estimates import Estimates
from cinnabar_gateway.records import QueueState, WaitEstimate
from tests.support.gateway_world import STUDENT, World, create_request, refusal_of, world
from tests.support.waiting import until

HOUR_US = 3_600_000_000
SLOW, FAST = WaitEstimate(7, 2.0, 9.0), WaitEstimate(90, 0.5, 1.0)
ALL_FAST: dict[str, WaitEstimate] = dict.fromkeys(("choice", "numeric", "text", "free-text"), FAST)


def now_us() -> int:
    """The time of these tests' gateway."""
    return int(SystemClock().time() * 1e6)


def timed(
    *, after_us: int | None = None, by_us: int | None = None, request_id: str = ""
) -> pb.CreateSubmissionRequest:
    """A good request with times."""
    request = create_request(request_id=request_id)
    if after_us is not None:
        request.submission.grade_after.FromMicroseconds(after_us)
    if by_us is not None:
        request.submission.grade_by.FromMicroseconds(by_us)
    return request


async def test_times_are_stored_queued_and_shown(gateway: World) -> None:
    after_us, by_us = now_us() + HOUR_US, now_us() + 2 * HOUR_US
    created = await gateway.submissions.CreateSubmission(
        timed(after_us=after_us, by_us=by_us), metadata=STUDENT
    )
    read = await gateway.submissions.GetSubmission(
        pb.GetSubmissionRequest(name=created.name), metadata=STUDENT
    )
    for shown in (created, read):
        assert shown.grade_after.ToMicroseconds() == after_us
        assert shown.grade_by.ToMicroseconds() == by_us
    await until(lambda: len(gateway.queue.tasks) == 4, "the tasks are queued")
    assert {(task.not_before_us, task.grade_by_us) for task in gateway.queue.tasks.values()} == {
        (after_us, by_us)
    }
    [counted] = [one for one in await gateway.queue.counts() if one.queue == "text"]
    assert (counted.ready, counted.delayed) == (0, 1)


async def test_without_times_there_are_none(gateway: World) -> None:
    created = await gateway.submission()
    assert not created.HasField("grade_after")
    assert not created.HasField("grade_by")


@pytest.mark.parametrize("behind_us", [0, 30_000_000, 59_000_000])
async def test_a_clock_that_is_a_little_behind_is_forgiven(gateway: World, behind_us: int) -> None:
    request = timed(after_us=now_us() - behind_us, by_us=now_us() - behind_us + 1_000)
    assert (await gateway.submissions.CreateSubmission(request, metadata=STUDENT)).name


async def test_times_belong_to_the_request(gateway: World) -> None:
    after_us = now_us() + HOUR_US
    first = await gateway.submissions.CreateSubmission(
        timed(after_us=after_us, request_id="r"), metadata=STUDENT
    )
    again = await gateway.submissions.CreateSubmission(
        timed(after_us=after_us, request_id="r"), metadata=STUDENT
    )
    assert again.name == first.name
    for other in (
        timed(request_id="r"),
        timed(after_us=after_us + 1, request_id="r"),
        timed(by_us=after_us, request_id="r"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.submissions.CreateSubmission(other, metadata=STUDENT)
        assert refusal_of(raised.value).reason == "REQUEST_ID_REUSED"


@dataclass
class LateClock(SystemClock):
    """The machine's clock, and so much later."""

    ahead: float = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def test_a_repeated_request_gets_its_first_answer_when_its_time_has_passed() -> None:
    clock = LateClock()
    async with world(clock=clock) as gateway:
        await gateway.assignment()
        request = timed(by_us=now_us() + HOUR_US, request_id="r")
        first = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
        clock.ahead = 7200.0
        again = await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
        assert again.name == first.name
        request.request_id = "r-2"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.submissions.CreateSubmission(request, metadata=STUDENT)
        assert refusal_of(raised.value).fields == ("submission.grade_by",)


async def test_the_slowest_queue_is_promised(gateway: World) -> None:
    gateway.queue.waits = ALL_FAST | {"free-text": SLOW}

    async def promised() -> bool:
        return (await gateway.submission()).HasField("estimate")

    await until(promised, "the estimates are known")
    estimate = (await gateway.submission()).estimate
    assert (estimate.position, seconds(estimate.p50), seconds(estimate.p90)) == (7, 2.0, 9.0)
    batch = pb.BatchCreateSubmissionsRequest(parent=create_request().parent, requests=[create_request()] * 2)
    answer = await gateway.submissions.BatchCreateSubmissions(batch, metadata=STUDENT)
    assert [seconds(one.submission.estimate.p90) for one in answer.results] == [9.0, 9.0]
    later = await gateway.submissions.CreateSubmission(
        timed(after_us=now_us() + HOUR_US, request_id="r"), metadata=STUDENT
    )
    assert 3600.0 < seconds(later.estimate.p50) < 3603.0
    assert 3600.0 < seconds(later.estimate.p90) - 7.0 < 3603.0
    again = await gateway.submissions.CreateSubmission(
        timed(after_us=later.grade_after.ToMicroseconds(), request_id="r"), metadata=STUDENT
    )
    assert (again.name, again.HasField("estimate")) == (later.name, False)
    read = await gateway.submissions.GetSubmission(pb.GetSubmissionRequest(name=later.name), metadata=STUDENT)
    assert not read.HasField("estimate")


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.ToMicroseconds() / 1e6


@dataclass
class Counting(MemoryQueue):
    """A queue that counts questions, and answers when it may."""

    asked: list[str] = field(default_factory=list[str])
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    away: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.waits = dict(ALL_FAST)

    async def estimates(self, tenant: str) -> dict[str, WaitEstimate]:
        """See Queue."""
        self.asked.append(tenant)
        await self.gate.wait()
        if self.away:
            raise DependencyUnavailable("scheduler")
        return await super().estimates(tenant)


@dataclass
class HandClock(SystemClock):
    """A clock that only its test moves."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


async def test_a_question_is_asked_once_and_nobody_waits_for_it() -> None:
    queue, clock = Counting(), HandClock()
    async with Estimates(queue, clock).running() as estimates:
        for _ in range(3):
            estimates.expect("uni")
        assert estimates.slowest("uni", {"text"}) is None
        queue.gate.set()
        await until(lambda: estimates.slowest("uni", {"text"}) is not None, "the answer is there")
        assert queue.asked == ["uni"]
        clock.now += 0.9
        estimates.expect("uni")
        assert queue.asked == ["uni"]
        queue.waits = {"text": SLOW}
        clock.now += 0.2
        estimates.expect("uni")
        assert estimates.slowest("uni", {"text"}) == FAST  # stale, while the new one is on its way
        await until(lambda: estimates.slowest("uni", {"text"}) == SLOW, "the new answer is there")
        assert estimates.slowest("uni", {"text", "choice"}) is None  # nobody knows about one of them
        assert estimates.slowest("uni", set()) is None


async def test_what_was_promised_is_believed_for_a_while() -> None:
    queue, clock = Counting(), HandClock()
    queue.gate.set()
    async with Estimates(queue, clock, kept_seconds=10.0).running() as estimates:
        estimates.expect("uni")
        await until(lambda: estimates.slowest("uni", {"text"}) is not None, "the answer is there")
        queue.away = True
        clock.now += 10.0
        estimates.expect("uni")
        await until(lambda: len(queue.asked) == 2, "it is asked again")
        assert estimates.slowest("uni", {"text"}) == FAST
        clock.now += 0.1
        assert estimates.slowest("uni", {"text"}) is None


async def test_tenants_are_bounded() -> None:
    queue, clock = Counting(), HandClock()
    async with Estimates(queue, clock, max_tenants=2, max_asking=2).running() as estimates:
        for tenant in ("a", "b", "c"):
            estimates.expect(tenant)
        await until(lambda: queue.asked == ["a", "b"], "two are asked at once")
        queue.gate.set()
        await until(lambda: estimates.slowest("b", {"text"}) is not None, "the answer is there")
        assert estimates.slowest("a", {"text"}) is None  # the least recently used is forgotten
        estimates.expect("c")
        await until(lambda: estimates.slowest("c", {"text"}) is not None, "there is room again")


async def test_a_paused_queue_promises_nothing(gateway: World) -> None:
    gateway.queue.waits = dict(ALL_FAST)
    gateway.queue.states["text"] = QueueState.PAUSED
    assert "text" not in await gateway.queue.estimates("uni")
