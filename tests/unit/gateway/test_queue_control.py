"""Pausing, draining and resuming queues; dead letters by filter; conservation; a watch of what failed."""

from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2 as submissions_pb
from cinnabar.gateway.v1.assignment_service_pb2 import (
    Assignment,
    CreateAssignmentRequest,
    GetAssignmentRequest,
)
from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.names import AssignmentName
from cinnabar_gateway.adapters.memory import MemoryQueue, MemoryStorage
from cinnabar_gateway.consistency import Positions
from cinnabar_gateway.operations import MAX_REDRIVE
from cinnabar_gateway.queue_states import QueueStates
from cinnabar_gateway.records import (
    CancelledTask,
    Conservation,
    DeadLetterFilter,
    DeadLetterPage,
    QueueCounts,
    QueueState,
    RedriveFate,
    Redriven,
    SubmissionKey,
)
from tests.support.gateway_world import (
    COURSE,
    INSTRUCTOR,
    OPERATOR,
    PARENT,
    STUDENT,
    World,
    create_request,
    credential,
    key_of,
    refusal_in,
    refusal_of,
    world,
)
from tests.support.waiting import until

Queue = pb.Queue
State = submissions_pb.Submission.State


async def drained(gateway: World, queue: str) -> None:
    """Drains a queue, and waits until the gateway has heard of it."""
    gateway.queue.states.setdefault(queue, QueueState.RUNNING)
    answer = await gateway.operations.DrainQueue(pb.DrainQueueRequest(queue=queue), metadata=OPERATOR)
    assert (answer.queue, answer.state) == (queue, Queue.DRAINING)
    assert queue in await gateway.gateway.queues.refresh_once()


async def test_a_queue_is_paused_and_resumed(gateway: World) -> None:
    await gateway.submission()
    await until(lambda: "text" in gateway.queue.states, "the tasks are queued")
    paused = await gateway.operations.PauseQueue(pb.PauseQueueRequest(queue="text"), metadata=OPERATOR)
    assert (paused.queue, paused.state, paused.ready) == ("text", Queue.PAUSED, 1)
    await gateway.gateway.queues.refresh_once()
    assert (await gateway.submission()).state == State.QUEUED  # a pause refuses nothing
    resumed = await gateway.operations.ResumeQueue(pb.ResumeQueueRequest(queue="text"), metadata=OPERATOR)
    assert resumed.state == Queue.RUNNING


@pytest.mark.parametrize("verb", ["Pause", "Resume", "Drain"])
async def test_a_queue_that_nobody_uses_is_not_found(gateway: World, verb: str) -> None:
    request = getattr(pb, f"{verb}QueueRequest")(queue="none")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(gateway.operations, f"{verb}Queue")(request, metadata=OPERATOR)
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert refusal.metadata == {"resource": "queues/none"}


async def test_a_draining_queue_refuses_what_needs_it(gateway: World) -> None:
    kept = await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
    await drained(gateway, "free-text")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submission()
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_DRAINING")
    assert refusal.metadata == {"queue": "free-text"}
    assert refusal.retry_after is not None
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.submissions.CreateSubmission(create_request(request_id="r-2"), metadata=STUDENT)
    assert refusal_of(raised.value).reason == "QUEUE_DRAINING"
    assert len(gateway.storage.submissions) == 1
    # What was accepted before the drain gives its first answer all the same.
    again = await gateway.submissions.CreateSubmission(create_request(request_id="r"), metadata=STUDENT)
    assert again.name == kept.name
    await gateway.operations.ResumeQueue(pb.ResumeQueueRequest(queue="free-text"), metadata=OPERATOR)
    await gateway.gateway.queues.refresh_once()
    assert (await gateway.submission()).state == State.QUEUED


async def test_a_drain_refuses_item_by_item(gateway: World) -> None:
    await drained(gateway, "free-text")
    text_only = submissions_pb.CreateSubmissionRequest(
        parent="courses/net/assignments/words",
        submission=submissions_pb.Submission(author="ann", answers=[create_request().submission.answers[2]]),
    )
    made = await gateway.assignments.GetAssignment(GetAssignmentRequest(name=PARENT), metadata=INSTRUCTOR)
    del made.items[3], made.items[1], made.items[0]
    await gateway.assignments.CreateAssignment(
        CreateAssignmentRequest(
            parent=COURSE, assignment=Assignment(items=made.items), assignment_id="words"
        ),
        metadata=INSTRUCTOR,
    )
    call = gateway.submissions.StreamCreateSubmissions(metadata=INSTRUCTOR)
    needs_it = create_request(author="bob", request_id="b")
    await call.write(submissions_pb.StreamCreateSubmissionsRequest(requests=[needs_it, text_only]))
    await call.done_writing()
    ack = await call.read()
    assert isinstance(ack, submissions_pb.StreamCreateSubmissionsResponse)
    assert refusal_in(ack.results[0].error).reason == "QUEUE_DRAINING"
    assert ack.results[1].submission.author == "ann"
    assert [one.author for one in gateway.storage.submissions.values()] == ["ann"]


class AwayQueue(MemoryQueue):
    """A queue that may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def counts(self) -> list[QueueCounts]:
        """See Queue."""
        if self.away:
            raise DependencyUnavailable("scheduler")
        return await super().counts()


class HandClock(SystemClock):
    """A clock that only its test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


async def test_a_drain_is_remembered_for_a_while_without_schedulers() -> None:
    queue, clock = AwayQueue(), HandClock()
    queue.states["text"] = QueueState.DRAINING
    states = QueueStates(queue, clock, forget_seconds=10.0)
    assert await states.refresh_once() == {"text"}
    queue.away = True
    clock.now += 10.0
    assert await states.refresh_once() == {"text"}
    clock.now += 0.1
    assert await states.refresh_once() == frozenset()
    assert states.refusal(["text"]) is None
    queue.away = False
    assert await states.refresh_once() == {"text"}


async def test_the_gateway_asks_for_the_states_by_itself() -> None:
    queue = AwayQueue()
    async with world(queue=queue, queue_refresh_seconds=0.01) as made:
        queue.states["text"] = QueueState.DRAINING
        await until(lambda: "text" in made.gateway.queues.draining, "the drain is known")
        queue.states["text"] = QueueState.RUNNING
        await until(lambda: not made.gateway.queues.draining, "the resume is known")


async def test_queues_say_all_that_is_known_of_them() -> None:
    class Full(MemoryQueue):
        async def counts(self) -> list[QueueCounts]:
            return [
                QueueCounts(
                    queue="text",
                    ready=1,
                    workers=2,
                    credits=7,
                    state=QueueState.PAUSED,
                    service_p50_seconds=0.25,
                    service_p90_seconds=1.5,
                    predicted_work_seconds=3.0,
                ),
                QueueCounts(queue="unmeasured"),
            ]

    async with world(queue=Full()) as made:
        listed = await made.operations.ListQueues(pb.ListQueuesRequest(), metadata=OPERATOR)
        text, unmeasured = listed.queues
        assert (text.state, text.credits, text.workers) == (Queue.PAUSED, 7, 2)
        seconds = [text.service_p50, text.service_p90, text.predicted_work]
        assert [one.ToMilliseconds() for one in seconds] == [250, 1500, 3000]
        assert unmeasured.state == Queue.RUNNING
        assert not any(
            unmeasured.HasField(field) for field in ("service_p50", "service_p90", "predicted_work")
        )


async def test_conservation_is_passed_on() -> None:
    counted = Conservation(
        accepted=21,
        open=6,
        dead_lettered=5,
        cancelled=4,
        graded=3,
        queued=2,
        waiting=1,
        leased=3,
        balanced=False,
        missing=7,
        orphaned=8,
        sweep_time_us=1_500_000,
    )

    class Counted(MemoryQueue):
        async def conservation(self) -> Conservation:
            return counted

    async with world(queue=Counted()) as made:
        answer = await made.operations.GetConservation(pb.GetConservationRequest(), metadata=OPERATOR)
    for field in ("accepted", "open", "dead_lettered", "cancelled", "graded", "queued", "waiting", "leased"):
        assert getattr(answer, field) == getattr(counted, field)
    assert (answer.balanced, answer.missing, answer.orphaned) == (False, 7, 8)
    assert answer.sweep_time == Timestamp(seconds=1, nanos=500_000_000)


async def given_up(gateway: World, count: int, *, reason: str = "broken") -> list[str]:
    """Submissions whose free text was given up; their names."""
    created = [await gateway.submission() for _ in range(count)]
    for one in created:
        gateway.storage.dead_letter(key_of(one), "explain", reason=reason, attempts=3)
    return [one.name for one in created]


async def test_dead_letters_are_filtered(gateway: World) -> None:
    broken, slow = await given_up(gateway, 2), await given_up(gateway, 1, reason="too slow")
    moments = sorted(
        task.update_time_us
        for one in gateway.storage.submissions.values()
        for task in one.tasks
        if task.reason
    )
    later = Timestamp()
    later.FromMicroseconds(moments[-1])

    async def listed(**wanted: object) -> list[str]:
        request = pb.ListDeadLettersRequest(**wanted)  # pyright: ignore[reportArgumentType]
        answer = await gateway.operations.ListDeadLetters(request, metadata=OPERATOR)
        return [one.submission for one in answer.dead_letters]

    assert await listed() == [*broken, *slow]
    assert await listed(reason="low") == slow
    assert await listed(queue="free-text", parent=PARENT, reason="broken") == broken
    assert await listed(parent="courses/net") == [*broken, *slow]
    assert await listed(parent="courses/net/assignments/other") == []
    assert await listed(parent="courses/other") == []
    assert await listed(queue="text") == []
    assert await listed(given_up_after=later) == slow
    assert await listed(given_up_before=later) == broken


async def test_a_redrive_tells_apart_what_it_leaves_alone(gateway: World) -> None:
    [dead] = await given_up(gateway, 1)
    stored = submissions_pb.Submission(name=dead)
    gateway.grade(stored, "pick")
    cancelled = await gateway.submission()
    await gateway.submissions.CancelSubmission(
        submissions_pb.CancelSubmissionRequest(name=cancelled.name), metadata=STUDENT
    )
    unknown = f"{PARENT}/submissions/s"
    wanted = [(dead, "explain"), (dead, "pick"), (dead, "count"), (cancelled.name, "pick"), (unknown, "pick")]
    tasks = [pb.RedriveDeadLettersRequest.Task(submission=name, item=item) for name, item in wanted]
    answer = await gateway.operations.RedriveDeadLetters(
        pb.RedriveDeadLettersRequest(tasks=tasks), metadata=OPERATOR
    )
    assert (answer.redriven, answer.more) == (1, False)
    assert [(one.task.submission, one.task.item) for one in answer.refused] == wanted[1:]
    errors = [refusal_in(one.error) for one in answer.refused]
    assert [error.reason for error in errors] == ["STATE_FORBIDS"] * 3 + ["RESOURCE_NOT_FOUND"]
    assert [error.metadata.get("state") for error in errors] == ["GRADED", "OPEN", "CANCELLED", None]
    assert errors[3].metadata == {"resource": f"{unknown}/items/pick"}


async def test_a_filter_is_redriven(gateway: World) -> None:
    broken = await given_up(gateway, 2)
    await given_up(gateway, 1, reason="too slow")
    request = pb.RedriveDeadLettersRequest(filter=pb.ListDeadLettersRequest(reason="broken"))
    foreign = credential("operator", "root", tenant="elsewhere")
    assert (await gateway.operations.RedriveDeadLetters(request, metadata=foreign)).redriven == 0
    answer = await gateway.operations.RedriveDeadLetters(request, metadata=OPERATOR)
    assert (answer.redriven, list(answer.refused), answer.more) == (2, [], False)
    await until(lambda: len(gateway.queue.tasks) == 12, "they are queued again")
    left = await gateway.operations.ListDeadLetters(pb.ListDeadLettersRequest(), metadata=OPERATOR)
    assert [one.reason for one in left.dead_letters] == ["too slow"]
    for name in broken:
        read = await gateway.submissions.GetSubmission(
            submissions_pb.GetSubmissionRequest(name=name), metadata=STUDENT
        )
        assert read.state == State.QUEUED


class HalfAway(MemoryStorage):
    """A store one of whose shards is away."""

    async def redrive(
        self,
        tenant: str,
        tasks: Sequence[tuple[str, str]],
        actor: str,
        *,
        parent: AssignmentName | None = None,
    ) -> Redriven:
        """See SubmissionStore."""
        return Redriven([], [RedriveFate.UNAVAILABLE for _ in tasks], ())

    async def cancel_submission(
        self, key: SubmissionKey, actor: str
    ) -> tuple[list[CancelledTask], Positions]:
        """See SubmissionStore."""
        raise DependencyUnavailable("storage")


async def test_a_shard_that_is_away_is_told_task_by_task() -> None:
    async with world(storage=HalfAway()) as made:
        await made.assignment()
        [name] = await given_up(made, 1)
        task = pb.RedriveDeadLettersRequest.Task(submission=name, item="explain")
        for request in (
            pb.RedriveDeadLettersRequest(tasks=[task]),
            pb.RedriveDeadLettersRequest(filter=pb.ListDeadLettersRequest()),
        ):
            answer = await made.operations.RedriveDeadLetters(request, metadata=OPERATOR)
            assert (answer.redriven, answer.refused[0].task) == (0, task)
            refusal = refusal_in(answer.refused[0].error)
            assert (refusal.code, refusal.reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "DEPENDENCY_UNAVAILABLE",
            )
            assert refusal.retry_after is not None
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await made.submissions.CancelSubmission(
                submissions_pb.CancelSubmissionRequest(name=name), metadata=STUDENT
            )
        assert refusal_of(raised.value).code == grpc.StatusCode.UNAVAILABLE


class Endless(MemoryStorage):
    """A store with more dead letters than one call redrives."""

    async def list_dead_letters(
        self, tenant: str, wanted: DeadLetterFilter, *, after: tuple[str, str], limit: int
    ) -> DeadLetterPage:
        """See SubmissionStore: the same letter again and again."""
        found = await super().list_dead_letters(tenant, wanted, after=("", ""), limit=1)
        return DeadLetterPage(found.letters * limit, more=True)


async def test_more_than_one_call_redrives_is_told() -> None:
    async with world(storage=Endless()) as made:
        await made.assignment()
        await given_up(made, 1)
        request = pb.RedriveDeadLettersRequest(filter=pb.ListDeadLettersRequest())
        answer = await made.operations.RedriveDeadLetters(request, metadata=OPERATOR)
        assert (answer.redriven, answer.more) == (1, True)
        assert MAX_REDRIVE == 1000


async def test_a_watch_ends_when_something_is_given_up_and_may_be_taken_up_again(gateway: World) -> None:
    created = await gateway.submission()
    request = submissions_pb.WatchSubmissionRequest(name=created.name)

    async def watched() -> list[int]:
        call = gateway.submissions.WatchSubmission(request, metadata=STUDENT)
        return [response.submission.state async for response in call]

    for item in ("pick", "count", "name"):
        gateway.grade(created, item)
    gateway.storage.dead_letter(key_of(created), "explain", reason="broken", attempts=6)
    assert await watched() == [State.FAILED]
    redrive = pb.RedriveDeadLettersRequest(filter=pb.ListDeadLettersRequest())
    assert (await gateway.operations.RedriveDeadLetters(redrive, metadata=OPERATOR)).redriven == 1
    call = gateway.submissions.WatchSubmission(request, metadata=STUDENT)
    first = await call.read()
    assert isinstance(first, submissions_pb.WatchSubmissionResponse)
    assert first.submission.state == State.GRADING
    gateway.grade(created, "explain")
    last = await call.read()
    assert isinstance(last, submissions_pb.WatchSubmissionResponse)
    assert last.submission.state == State.GRADED
    assert await call.read() is grpc.aio.EOF
