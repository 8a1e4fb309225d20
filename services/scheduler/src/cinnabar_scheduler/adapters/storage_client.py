"""The storage service as the scheduler's truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import AnswerSet
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1.storage_service_pb2_grpc import StorageReaderServiceStub, StorageWriterServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_common.names import split_task_id, task_id
from cinnabar_scheduler import convert
from cinnabar_scheduler.ports import OpenTasks, StoreUnavailable
from cinnabar_scheduler.tasks import (
    Committed,
    FencedOutcome,
    Grade,
    Position,
    QueueName,
    QueueState,
    Task,
    TaskCounts,
)

_RESULTS = {
    pb.CommitOutcomesResponse.COMMITTED: Committed.COMMITTED,
    pb.CommitOutcomesResponse.ALREADY_GRADED: Committed.ALREADY_GRADED,
    pb.CommitOutcomesResponse.SUPERSEDED: Committed.SUPERSEDED,
    pb.CommitOutcomesResponse.UNAVAILABLE: Committed.UNAVAILABLE,
}

MAX_KEYS = 10_000
# No message: such a task becomes a dead letter when it is delivered.
UNREADABLE_ANSWER = b"\xff"


class StorageClient:
    """Implements ports.Store."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float) -> None:
        self._writer = StorageWriterServiceStub(channel)
        self._reader = StorageReaderServiceStub(channel)
        self._timeout = timeout_seconds
        self._shards = 0

    async def commit(self, outcomes: Sequence[FencedOutcome]) -> tuple[list[Committed], list[Position]]:
        request = pb.CommitOutcomesRequest(outcomes=map(_fenced_outcome, outcomes))
        try:
            response = await self._writer.CommitOutcomes(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return (
            [_RESULTS[result] for result in response.results],
            [Position(position.shard, position.lsn) for position in response.positions],
        )

    async def items(self, revisions: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        request = pb.GetRevisionsRequest(
            revisions=[pb.RevisionKey(tenant=tenant, revision_id=revision) for tenant, revision in revisions]
        )
        try:
            response = await self._reader.GetRevisions(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return {
            f"{record.revision_id}/{item.item}": item.SerializeToString()
            for record in response.revisions
            for item in Assignment.FromString(record.spec).items
        }

    async def shard_count(self) -> int:
        if not self._shards:
            try:
                response = await self._reader.ListShards(pb.ListShardsRequest(), timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                raise StoreUnavailable from from_rpc_error(error, "storage")
            self._shards = response.shard_count
        return self._shards

    async def ping(self) -> None:
        """Raises StoreUnavailable when storage does not answer."""
        try:
            await self._reader.ListShards(pb.ListShardsRequest(), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")

    async def arrivals(self) -> tuple[int, list[int]]:
        try:
            response = await self._reader.ListShards(
                pb.ListShardsRequest(arrivals=True), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        # A storage of the release before says nothing of them.
        return response.epoch, list(response.arrival_epochs) or [0] * response.shard_count

    async def open_tasks(
        self, shard: int, after: tuple[str, str] | None, limit: int, epoch: int = 0
    ) -> OpenTasks:
        submission, item = after or ("", "")
        request = pb.ListOpenTasksRequest(
            shard=shard,
            after_submission_id=submission,
            after_item_id=item,
            limit=limit,
            min_epoch=epoch,
        )
        try:
            response = await self._reader.ListOpenTasks(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        tasks = queued_tasks(response.tasks)
        # A storage of the release before says no more than "as many as were asked for".
        more = response.more or len(response.tasks) == limit
        last = response.tasks[-1] if more else None
        return OpenTasks(tasks, (last.submission_id, last.item_id) if last else None)

    async def open_generations(self, tasks: Sequence[tuple[str, str]]) -> list[int | None]:
        answers: list[int | None] = []
        for start in range(0, len(tasks), MAX_KEYS):
            request = pb.GetTaskStatesRequest()
            for tenant, task in tasks[start : start + MAX_KEYS]:
                submission, item = split_task_id(task)
                request.keys.add(tenant=tenant, submission_id=submission, item_id=item)
            try:
                response = await self._reader.GetTaskStates(request, timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                raise StoreUnavailable from from_rpc_error(error, "storage")
            answers += [None if state.unavailable else state.open_generation for state in response.states]
        return answers

    async def count_tasks(self) -> TaskCounts:
        try:
            counts = await self._reader.CountTasks(
                pb.CountTasksRequest(every_shard=True), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return TaskCounts(
            accepted=counts.accepted,
            open=counts.open,
            dead_lettered=counts.dead_lettered,
            cancelled=counts.cancelled,
            graded=counts.graded,
        )

    async def set_control(self, queue: QueueName, state: QueueState, actor: str) -> None:
        control = pb.QueueControl(queue=queue, state=convert.queue_state(state), actor=actor)
        try:
            await self._writer.SetQueueControl(
                pb.SetQueueControlRequest(control=control), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")

    async def controls(self) -> dict[QueueName, QueueState]:
        try:
            response = await self._reader.ListQueueControls(
                pb.ListQueueControlsRequest(), timeout=self._timeout
            )
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return {
            QueueName(one.queue): convert.wanted_state(one.state) or QueueState.RUNNING
            for one in response.controls
        }


def _fenced_outcome(outcome: FencedOutcome) -> pb.FencedOutcome:
    submission, item = split_task_id(outcome.task)
    message = pb.FencedOutcome(
        tenant=outcome.tenant,
        submission_id=submission,
        item_id=item,
        generation=outcome.generation,
        fence=outcome.fence,
        lease_token=outcome.token,
        worker=outcome.worker,
    )
    result = outcome.outcome
    if isinstance(result, Grade):
        message.grade.score = result.score
        message.grade.grade = result.blob
        if result.doubts is not None:
            message.grade.needs_review = True
            message.grade.flags.extend(result.doubts)
            message.grade.max_score = result.max_score
        if result.upgradable:
            message.grade.upgradable = True
    else:
        message.dead_letter.reason = result.reason
        message.dead_letter.attempts = result.attempts
    return message


def queued_tasks(opened: Iterable[pb.OpenTask]) -> list[Task]:
    """Open tasks as they are queued: ready since their submission was created, so they keep their places."""
    tasks: list[Task] = []
    for one in opened:
        item = one.item_id
        ready_ms = _ms(one.create_time)
        waits = one.HasField("grade_after")
        if waits:
            ready_ms = max(ready_ms, _ms(one.grade_after))
        tasks.append(
            Task(
                task=task_id(one.submission_id, item),
                tenant=one.tenant,
                queue=QueueName(one.queue),
                generation=one.generation,
                head_start=convert.head_start(one.priority),
                ready_ms=ready_ms,
                item_key=f"{one.revision_id}/{item}",
                answer=_answer(one.answers, item),
                grade_by_ms=_ms(one.grade_by) if one.HasField("grade_by") else None,
                ready_now=not waits,
                upgrade=one.upgrade,
            )
        )
    return tasks


def _answer(answers: bytes, item: str) -> bytes:
    """The serialized answer to an item; one bad row must not keep all others from being queued."""
    try:
        given = AnswerSet.FromString(answers).answers
    except DecodeError:
        return UNREADABLE_ANSWER
    for one in given:
        if one.item == item:
            return one.SerializeToString()
    return b""


def _ms(time: Timestamp) -> int:
    """Unix ms; a rebuild converts too many of them for Timestamp's own method."""
    return time.seconds * 1000 + time.nanos // 1_000_000
