"""Progress of tasks: protos to what is kept and back, and validation of requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cinnabar.scheduler.v1 import queue_service_pb2 as queue_pb
from cinnabar.scheduler.v1 import work_service_pb2 as work_pb
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_common.names import ID_RULE, is_id, split_task_id
from cinnabar_scheduler.convert import tests_problem
from cinnabar_scheduler.tasks import QueueName

MAX_PROGRESS_BYTES = 32 * 1024
MAX_PROGRESS_TASKS = 1_000
# Of one answer about progress; what does not fit is left out of it.
PROGRESS_ANSWER_BYTES = 16 * 1024 * 1024


def kept(message: work_pb.Progress) -> bytes | None:
    """How far a task is, as it is kept: without what programs wrote where that is too much.

    None when it is too much all the same, or says what cannot be.
    """
    if tests_problem(message.tests):
        return None
    told = queue_pb.GetProgressResponse.Progress(tests=message.tests)
    if told.ByteSize() > MAX_PROGRESS_BYTES:
        for test in told.tests:
            test.ClearField("output")
            test.ClearField("message")
    return told.SerializeToString() if told.ByteSize() <= MAX_PROGRESS_BYTES else None


def wanted(request: queue_pb.GetProgressRequest) -> dict[QueueName, list[int]]:
    """Which tasks of the request are in which queue, by index. Raises InvalidRequest."""
    if len(request.tasks) > MAX_PROGRESS_TASKS:
        raise InvalidRequest([FieldViolation("tasks", f"at most {MAX_PROGRESS_TASKS}")])
    violations = [
        violation.under(f"tasks[{index}]")
        for index, task in enumerate(request.tasks)
        for violation in _problems(task)
    ]
    if violations:
        raise InvalidRequest(violations)
    found: dict[QueueName, list[int]] = {}
    for index, task in enumerate(request.tasks):
        found.setdefault(QueueName(task.queue), []).append(index)
    return found


def response(found: Sequence[bytes]) -> queue_pb.GetProgressResponse:
    """What is known of tasks, in order; when it is too much, nothing of the last ones."""
    answer = queue_pb.GetProgressResponse()
    size = 0
    for payload in found:
        size += len(payload)
        answer.progress.add().MergeFromString(payload if size <= PROGRESS_ANSWER_BYTES else b"")
    return answer


def _problems(task: queue_pb.GetProgressRequest.Task) -> Iterator[FieldViolation]:
    try:
        split_task_id(task.task)
    except ValueError:
        yield FieldViolation("task", 'must be "{submission}/{item}"')
    if not is_id(task.queue):
        yield FieldViolation("queue", ID_RULE)
    if task.generation < 1:
        yield FieldViolation("generation", "must be at least 1")
