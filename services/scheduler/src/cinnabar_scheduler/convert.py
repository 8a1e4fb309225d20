"""Protos to the scheduler's domain and back, and validation of requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from cinnabar.grader.v1.grade_pb2 import Answer, TestResult
from cinnabar.grader.v1.item_pb2 import Item
from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as work_pb
from cinnabar.type.v1.position_pb2 import Position as PositionProto
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, is_id, split_task_id
from cinnabar_scheduler.conservation import Snapshot
from cinnabar_scheduler.dispatch import Delivery
from cinnabar_scheduler.load import Load
from cinnabar_scheduler.outcomes import Failure, Fate
from cinnabar_scheduler.ports import Changed
from cinnabar_scheduler.session import ProtocolViolation
from cinnabar_scheduler.tasks import Grade, HeadStart, Lease, Position, QueueName, QueueState, Task, Why

MAX_TASKS = 10_000
MAX_OUTCOMES = 1_000
MAX_REASON = 500
MAX_AHEAD_DAYS = 400
MAX_AHEAD_MS = MAX_AHEAD_DAYS * 86_400_000
MAX_ARTIFACTS = 20
MAX_TITLE = 128
MAX_GRADE_BYTES = 256 * 1024
MAX_TESTS = 1_000
MAX_TEST_SECONDS = 86_400
# Clients of other languages take messages of at most 4 MiB unless told otherwise.
MESSAGE_BYTES = 2 * 1024 * 1024

_HEAD_STARTS = {
    queue_pb.PRIORITY_UNSPECIFIED: HeadStart.NORMAL,
    queue_pb.REGRADE: HeadStart.REGRADE,
    queue_pb.LOW: HeadStart.LOW,
    queue_pb.NORMAL: HeadStart.NORMAL,
    queue_pb.HIGH: HeadStart.HIGH,
    queue_pb.RECOVERY: HeadStart.RECOVERY,
}

_STATES = {
    QueueState.RUNNING: queue_pb.RUNNING,
    QueueState.PAUSED: queue_pb.PAUSED,
    QueueState.DRAINING: queue_pb.DRAINING,
}
_WANTED_STATES = {number: state for state, number in _STATES.items()}

# By the class of a failure its task is tried again; all other codes are FAILED.
_CLASSES: dict[int, Why] = {
    code_pb2.UNAVAILABLE: Why.UNAVAILABLE,
    code_pb2.RESOURCE_EXHAUSTED: Why.UNAVAILABLE,
    code_pb2.DEADLINE_EXCEEDED: Why.UNAVAILABLE,
    code_pb2.ABORTED: Why.UNAVAILABLE,
    code_pb2.INVALID_ARGUMENT: Why.PERMANENT,
    code_pb2.FAILED_PRECONDITION: Why.PERMANENT,
    code_pb2.OUT_OF_RANGE: Why.PERMANENT,
    code_pb2.UNIMPLEMENTED: Why.PERMANENT,
}

_RECEIPTS = {
    Fate.COMMITTED: work_pb.Receipt.COMMITTED,
    Fate.RETRYING: work_pb.Receipt.RETRYING,
    Fate.DEAD_LETTERED: work_pb.Receipt.DEAD_LETTERED,
    Fate.RETURNED: work_pb.Receipt.RETURNED,
    Fate.STALE_LEASE: work_pb.Receipt.STALE_LEASE,
    Fate.ALREADY_GRADED: work_pb.Receipt.ALREADY_GRADED,
    Fate.SUPERSEDED: work_pb.Receipt.SUPERSEDED,
    Fate.REJECTED: work_pb.Receipt.REJECTED,
}


def head_start(priority: int) -> HeadStart:
    """Head start of a priority number; that of NORMAL for unknown ones."""
    return _HEAD_STARTS.get(queue_pb.Priority.ValueType(priority), HeadStart.NORMAL)


def tasks(request: queue_pb.EnqueueRequest, now_ms: int) -> list[Task]:
    """The tasks of a request, ready at ``now_ms`` unless they name a later time.

    Raises InvalidRequest with every broken rule.
    """
    if len(request.tasks) > MAX_TASKS:
        raise InvalidRequest([FieldViolation("tasks", f"at most {MAX_TASKS}")])
    violations: list[FieldViolation] = []
    result: list[Task] = []
    for index, task in enumerate(request.tasks):
        problems = _task_problems(task, now_ms)
        if problems:
            violations += [problem.under(f"tasks[{index}]") for problem in problems]
            continue
        waits = task.HasField("not_before")
        result.append(
            Task(
                task=task.task,
                tenant=task.tenant,
                queue=QueueName(task.queue),
                generation=task.generation,
                head_start=head_start(task.priority),
                ready_ms=max(now_ms, task.not_before.ToMilliseconds()) if waits else now_ms,
                item_key=task.item_key,
                answer=task.answer,
                grade_by_ms=task.grade_by.ToMilliseconds() if task.HasField("grade_by") else None,
                ready_now=not waits,
                upgrade=task.upgrade,
            )
        )
    if violations:
        raise InvalidRequest(violations)
    return result


def _task_problems(task: queue_pb.QueuedTask, now_ms: int) -> list[FieldViolation]:
    problems = (
        _time_problems(task, now_ms) if task.HasField("not_before") or task.HasField("grade_by") else []
    )
    try:
        split_task_id(task.task)
    except ValueError:
        problems.append(FieldViolation("task", 'must be "{submission}/{item}"'))
    if not is_id(task.tenant):
        problems.append(FieldViolation("tenant", ID_RULE))
    if not is_id(task.queue):
        problems.append(FieldViolation("queue", ID_RULE))
    if task.generation < 1:
        problems.append(FieldViolation("generation", "must be at least 1"))
    if "/" not in task.item_key or "\n" in task.item_key or " " in task.item_key:
        problems.append(FieldViolation("item_key", 'must be "{revision}/{item}"'))
    return problems


def _time_problems(task: queue_pb.QueuedTask, now_ms: int) -> list[FieldViolation]:
    problems: list[FieldViolation] = []
    times: dict[str, int] = {}
    for field in ("not_before", "grade_by"):
        if task.HasField(field):
            stamp = task.not_before if field == "not_before" else task.grade_by
            if not 0 <= stamp.nanos < 1_000_000_000:
                problems.append(FieldViolation(field, "is not a time"))
                continue
            at_ms = stamp.seconds * 1000 + stamp.nanos // 1_000_000
            if at_ms < 0:
                problems.append(FieldViolation(field, "must not be before 1970"))
            elif at_ms > now_ms + MAX_AHEAD_MS:
                problems.append(FieldViolation(field, f"must be at most {MAX_AHEAD_DAYS} days ahead"))
            times[field] = at_ms
    if len(times) == 2 and times["grade_by"] <= times["not_before"]:
        problems.append(FieldViolation("grade_by", "must be after not_before"))
    return problems


def cancellations(request: queue_pb.CancelRequest) -> dict[QueueName, list[str]]:
    """Task ids by queue. Raises InvalidRequest."""
    if len(request.tasks) > MAX_TASKS:
        raise InvalidRequest([FieldViolation("tasks", f"at most {MAX_TASKS}")])
    violations = [
        FieldViolation(f"tasks[{index}].queue", ID_RULE)
        for index, task in enumerate(request.tasks)
        if not is_id(task.queue)
    ]
    if violations:
        raise InvalidRequest(violations)
    result: dict[QueueName, list[str]] = {}
    for task in request.tasks:
        result.setdefault(QueueName(task.queue), []).append(task.task)
    return result


def queue_state(state: QueueState) -> queue_pb.QueueState.ValueType:
    """What a queue does, as a number."""
    return _STATES[state]


def wanted_state(number: int) -> QueueState | None:
    """What a queue is to do; None for a number that says nothing."""
    return _WANTED_STATES.get(queue_pb.QueueState.ValueType(number))


def control(request: queue_pb.ControlQueueRequest) -> tuple[QueueName, QueueState, str]:
    """(queue, state, actor). Raises InvalidRequest."""
    state = wanted_state(request.state)
    violations: list[FieldViolation] = []
    if not is_id(request.queue):
        violations.append(FieldViolation("queue", ID_RULE))
    if not request.actor:
        violations.append(FieldViolation("actor", "must say who asks"))
    if state is None:
        violations.append(FieldViolation("state", "must be RUNNING, PAUSED or DRAINING"))
    if violations or state is None:
        raise InvalidRequest(violations)
    return QueueName(request.queue), state, request.actor


def conservation(found: Snapshot) -> queue_pb.GetConservationResponse:
    """A snapshot as it travels."""
    stored = found.stored
    response = queue_pb.GetConservationResponse(
        accepted=stored.accepted,
        open=stored.open,
        dead_lettered=stored.dead_lettered,
        cancelled=stored.cancelled,
        graded=stored.graded,
        queued=found.queued,
        waiting=found.waiting,
        leased=found.leased,
        balanced=found.balanced,
        missing=found.missing,
        orphaned=found.orphaned,
    )
    if found.findings is not None:
        response.sweep_time.FromMilliseconds(found.findings.ended_ms)
    return response


def hello(message: work_pb.Hello) -> tuple[str, Sequence[str]]:
    """(worker, queues). Raises ProtocolViolation."""
    if not is_id(message.worker):
        raise ProtocolViolation(f"hello.worker {ID_RULE}")
    for queue in message.queues:
        if not is_id(queue):
            raise ProtocolViolation(f"hello.queues {ID_RULE}")
    return message.worker, message.queues


def grade(outcome: work_pb.Outcome) -> Grade | Failure:
    """The verdict of an outcome; a Failure of the grader when it is not one that may be kept."""
    verdict = outcome.grade
    if not 0 <= verdict.score <= verdict.max_score < math.inf:  # false for NaN too
        return Failure("the grader's score is not between 0 and the maximum")
    if not verdict.criteria:
        return Failure("the grader's grade has no criteria")
    for criterion in verdict.criteria:
        if not 0 <= criterion.score <= criterion.max_score < math.inf:
            return Failure("a criterion's score is not between 0 and its maximum")
    if verdict.tests and (problem := tests_problem(verdict.tests)):
        return Failure(problem)
    artifacts: tuple[str, ...] = ()
    if verdict.artifacts:
        artifacts = tuple(artifact.upload for artifact in verdict.artifacts)
        if len(artifacts) > MAX_ARTIFACTS or len(set(artifacts)) < len(artifacts):
            return Failure(f"the grader's grade has more than {MAX_ARTIFACTS} artifacts, or one twice")
        if any(len(artifact.title) > MAX_TITLE for artifact in verdict.artifacts):
            return Failure(f"the title of an artifact is longer than {MAX_TITLE} characters")
    blob = verdict.SerializeToString()
    if len(blob) > MAX_GRADE_BYTES:
        return Failure(f"the grader's grade is larger than {MAX_GRADE_BYTES} bytes")
    doubts = tuple(verdict.flags) if verdict.needs_review else None
    return Grade(verdict.score, blob, artifacts, doubts, verdict.max_score, verdict.upgradable)


def tests_problem(tests: Sequence[TestResult]) -> str:
    """Why these are no results of tests; "" when they are."""
    if len(tests) > MAX_TESTS:
        return f"the grader tells of more than {MAX_TESTS} tests"
    for test in tests:
        if not 0 <= test.score <= test.max_score < math.inf:
            return "a test's score is not between 0 and its maximum"
        for time in (test.cpu_time, test.wall_time):
            if not (0 <= time.seconds <= MAX_TEST_SECONDS and 0 <= time.nanos < 1_000_000_000):
                return "the time of a test is none"
    return ""


def failure(outcome: work_pb.Outcome) -> Failure:
    """The failure that a grader tells."""
    return Failure(
        outcome.failure.message[:MAX_REASON] or "the grader gave no reason",
        _CLASSES.get(outcome.failure.code, Why.FAILED),
    )


def receipt(token: str, fate: Fate) -> work_pb.Receipt:
    """The answer to one outcome."""
    return work_pb.Receipt(lease_token=token, result=_RECEIPTS[fate])


def deliveries(delivery: Delivery, unreadable: Callable[[Lease], None]) -> Iterator[work_pb.WorkResponse]:
    """What goes out to a worker, in messages of about MESSAGE_BYTES at most.

    ``unreadable`` is told of leases whose answer is not one.
    """
    if delivery.cancelled:
        yield work_pb.WorkResponse(cancellations=work_pb.Cancellations(lease_tokens=delivery.cancelled))
    response, size = work_pb.WorkResponse(), 0
    items = dict(delivery.items)
    for lease in delivery.leases:
        try:
            answer = Answer.FromString(lease.answer)
        except DecodeError:
            unreadable(lease)
            continue
        item = items.pop(lease.item_key, None)
        own = len(lease.answer) + (len(item) if item is not None else 0)
        if size + own > MESSAGE_BYTES and response.leases.tasks:
            yield response
            response, size = work_pb.WorkResponse(), 0
        size += own
        leases = response.leases
        if item is not None:
            leases.items.add(item_key=lease.item_key, item=Item.FromString(item))
        told = leases.tasks.add(
            lease_token=lease.token,
            task=lease.task,
            generation=lease.generation,
            attempt=lease.delivery,
            queue=lease.queue,
            item_key=lease.item_key,
            answer=answer,
            upgrade=lease.upgrade,
        )
        if lease.grade_by_ms is not None:
            told.grade_by.FromMilliseconds(lease.grade_by_ms)
    for key, item in items.items():  # of unreadable answers: a later task may refer to them
        response.leases.items.add(item_key=key, item=Item.FromString(item))
    if response.HasField("leases"):
        yield response


def queue_load(load: Load) -> work_pb.Pulse.QueueLoad:
    """The load of one queue, for workers."""
    message = work_pb.Pulse.QueueLoad(
        queue=load.queue, ready=load.available, leased=load.counts.leased, workers=load.workers
    )
    if load.available:
        _set_seconds(message.oldest_age, load.oldest_age_seconds)
    if load.time is not None:
        _set_seconds(message.predicted_work, load.available * load.time.mean)
    return message


def queue_stats(load: Load) -> queue_pb.QueueStats:
    """The state of a queue as operators and gateways see it."""
    counts = load.counts
    stats = queue_pb.QueueStats(
        queue=load.queue,
        ready=counts.ready,
        delayed=counts.delayed,
        leased=counts.leased,
        workers=load.workers,
        credits=load.credits,
        state=_STATES[counts.state],
        tenant_ready=counts.tenant_ready,
        capped=counts.capped,
    )
    if counts.oldest_ready_ms is not None:
        _set_seconds(stats.oldest_age, load.oldest_age_seconds)
    if load.time is not None:
        _set_seconds(stats.service_time.mean, load.time.mean)
        _set_seconds(stats.service_time.p50, load.time.p50)
        _set_seconds(stats.service_time.p90, load.time.p90)
        stats.service_time.throughput = load.time.throughput
    if load.estimate is not None:
        stats.estimate.position = load.estimate.position
        _set_seconds(stats.estimate.p50, load.estimate.p50)
        _set_seconds(stats.estimate.p90, load.estimate.p90)
    if load.work_seconds is not None:
        _set_seconds(stats.predicted_work, load.work_seconds)
    return stats


def _set_seconds(duration: Duration, seconds: float) -> None:
    duration.FromNanoseconds(int(seconds * 1e9))


def follow_response(changed: Changed) -> queue_pb.FollowResponse:
    """A change as it travels to gateways and other schedulers."""
    return queue_pb.FollowResponse(
        submission_ids=changed.submissions,
        positions=[PositionProto(shard=position.shard, lsn=position.lsn) for position in changed.positions],
    )


def changed(message: queue_pb.FollowResponse) -> Changed:
    """The other way round."""
    return Changed(
        list(message.submission_ids),
        [Position(position.shard, position.lsn) for position in message.positions],
    )
