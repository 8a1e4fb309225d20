"""Storage for tests of the scheduler: the gRPC services over dictionaries, with the real fences."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Answer, AnswerSet
from cinnabar.grader.v1.item_pb2 import FreeTextSpec, Item
from cinnabar.storage.v1 import records_pb2 as records
from cinnabar.storage.v1 import storage_service_pb2 as pb
from cinnabar.storage.v1.storage_service_pb2_grpc import (
    add_StorageReaderServiceServicer_to_server,
    add_StorageWriterServiceServicer_to_server,
)
from cinnabar.type.v1.position_pb2 import Position
from cinnabar_common.names import Bucket, new_id

ITEM = "q1"
Result = pb.CommitOutcomesResponse


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _from(now: Timestamp, seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    then = Timestamp()
    then.FromMilliseconds(now.ToMilliseconds() + int(seconds * 1000))
    return then


@dataclass(slots=True)
class Stored:
    """A task as it is stored, and what became of it."""

    open: pb.OpenTask
    fence: int = 0
    grade: bytes = b""
    dead: pb.FencedOutcome.DeadLetter | None = None
    worker: str = ""


@dataclass(slots=True)
class FakeStorage:
    """What is stored. ``outage`` refuses every call (counted), ``lost_shards`` the outcomes of a shard."""

    shards: int = 2
    outage: bool = False
    refusals: int = 0
    lost_shards: set[int] = field(default_factory=set[int])
    tasks: dict[str, Stored] = field(default_factory=dict[str, Stored])
    revisions: dict[str, bytes] = field(default_factory=dict[str, bytes])
    commits: list[int] = field(default_factory=list[int])
    # Pages of open tasks wait while this is not set; how many have been asked for is counted.
    pages: asyncio.Event = field(default_factory=lambda: _set())
    pages_asked: int = 0
    # Queue name -> (state, actor).
    controls: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    lsn: int = 0

    def add_revision(self, tenant: str = "t1", *, items: Iterable[str] = (ITEM,)) -> str:
        """A new revision of an assignment with free-text items; returns its id."""
        revision = new_id(Bucket(1))
        self.revisions[f"{tenant}/{revision}"] = Assignment(
            items=[
                Item(item=item, points=5, prompt="Why?", free_text=FreeTextSpec(references=["Because."]))
                for item in items
            ]
        ).SerializeToString()
        return revision

    def add_tasks(
        self,
        count: int,
        *,
        revision: str,
        tenant: str = "t1",
        queue: str = "free-text",
        item: str = ITEM,
        text: str = "an answer",
        bucket: int = 0,
        grade_after: float | None = None,
        grade_by: float | None = None,
    ) -> list[pb.OpenTask]:
        """Accepts submissions of one item each, as the gateway would have it done.

        ``grade_after`` and ``grade_by`` are seconds from now.
        """
        answers = AnswerSet(answers=[Answer(item=item, text=text)]).SerializeToString()
        now = Timestamp()
        now.FromMilliseconds(int(time.time() * 1000))
        added: list[pb.OpenTask] = []
        for _ in range(count):
            task = pb.OpenTask(
                submission_id=new_id(Bucket(bucket)),
                item_id=item,
                tenant=tenant,
                queue=queue,
                generation=1,
                priority=3,
                revision_id=revision,
                answers=answers,
                create_time=now,
                grade_after=_from(now, grade_after),
                grade_by=_from(now, grade_by),
            )
            self.tasks[f"{task.submission_id}/{item}"] = Stored(task)
            added.append(task)
        return added

    @property
    def open_count(self) -> int:
        """Tasks without a grade and not given up."""
        return sum(not task.grade and task.dead is None for task in self.tasks.values())

    @property
    def graded(self) -> set[str]:
        """Ids of the tasks with a grade."""
        return {name for name, task in self.tasks.items() if task.grade}

    def shard_of(self, submission: str) -> int:
        """The shard of a submission by the bucket in its id."""
        return int(submission.rpartition("-")[2], 16) * self.shards // 1024

    def commit(self, outcome: pb.FencedOutcome) -> "Result.Result.ValueType":
        """One outcome under its fence."""
        if self.shard_of(outcome.submission_id) in self.lost_shards:
            return Result.UNAVAILABLE
        task = self.tasks.get(f"{outcome.submission_id}/{outcome.item_id}")
        if task is None or task.open.tenant != outcome.tenant or task.open.generation != outcome.generation:
            return Result.SUPERSEDED
        if task.grade:
            return Result.ALREADY_GRADED
        if task.dead is not None or task.fence >= outcome.fence:
            return Result.SUPERSEDED
        task.fence, task.worker = outcome.fence, outcome.worker
        if outcome.HasField("grade"):
            task.grade = outcome.grade.grade
        else:
            task.dead = outcome.dead_letter
        return Result.COMMITTED

    def state(self, key: pb.GetTaskStatesRequest.Key) -> pb.GetTaskStatesResponse.TaskState:
        """Where one task is."""
        if self.shard_of(key.submission_id) in self.lost_shards:
            return pb.GetTaskStatesResponse.TaskState(unavailable=True)
        task = self.tasks.get(f"{key.submission_id}/{key.item_id}")
        is_open = task is not None and task.open.tenant == key.tenant and not task.grade and task.dead is None
        return pb.GetTaskStatesResponse.TaskState(
            open_generation=task.open.generation if task is not None and is_open else 0
        )

    def servicer(self) -> "_Servicer":
        """The gRPC face."""
        return _Servicer(self)


class _Servicer:
    """Both services; only the methods that the scheduler calls do anything."""

    def __init__(self, storage: FakeStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        async def unknown(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

        return unknown

    async def _up(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self._storage.outage:
            self._storage.refusals += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "outage")

    async def CommitOutcomes(
        self, request: pb.CommitOutcomesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CommitOutcomesResponse:
        await self._up(context)
        storage = self._storage
        storage.commits.append(len(request.outcomes))
        storage.lsn += 8
        return pb.CommitOutcomesResponse(
            results=[storage.commit(outcome) for outcome in request.outcomes],
            positions=[Position(shard=0, lsn=storage.lsn)],
        )

    async def GetRevisions(
        self, request: pb.GetRevisionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetRevisionsResponse:
        await self._up(context)
        return pb.GetRevisionsResponse(
            revisions=[
                records.AssignmentRecord(tenant=key.tenant, revision_id=key.revision_id, spec=spec)
                for key in request.revisions
                if (spec := self._storage.revisions.get(f"{key.tenant}/{key.revision_id}")) is not None
            ]
        )

    async def ListShards(
        self, request: pb.ListShardsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListShardsResponse:
        await self._up(context)
        return pb.ListShardsResponse(shard_count=self._storage.shards)

    async def GetTaskStates(
        self, request: pb.GetTaskStatesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetTaskStatesResponse:
        await self._up(context)
        return pb.GetTaskStatesResponse(states=map(self._storage.state, request.keys))

    async def CountTasks(
        self, request: pb.CountTasksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CountTasksResponse:
        await self._up(context)
        storage = self._storage
        if storage.lost_shards if request.every_shard else request.shard in storage.lost_shards:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "shard")
        tasks = [
            task
            for task in storage.tasks.values()
            if request.every_shard or storage.shard_of(task.open.submission_id) == request.shard
        ]
        graded, dead = sum(bool(task.grade) for task in tasks), sum(task.dead is not None for task in tasks)
        return pb.CountTasksResponse(
            accepted=len(tasks), open=len(tasks) - graded - dead, graded=graded, dead_lettered=dead
        )

    async def SetQueueControl(
        self, request: pb.SetQueueControlRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SetQueueControlResponse:
        await self._up(context)
        control = request.control
        self._storage.controls[control.queue] = (control.state, control.actor)
        return pb.SetQueueControlResponse()

    async def ListQueueControls(
        self, request: pb.ListQueueControlsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListQueueControlsResponse:
        await self._up(context)
        return pb.ListQueueControlsResponse(
            controls=[
                pb.QueueControl(queue=queue, state=state, actor=actor)
                for queue, (state, actor) in sorted(self._storage.controls.items())
            ]
        )

    async def ListOpenTasks(
        self, request: pb.ListOpenTasksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListOpenTasksResponse:
        await self._up(context)
        storage = self._storage
        storage.pages_asked += 1
        await storage.pages.wait()
        after = f"{request.after_submission_id}/{request.after_item_id}"
        names = sorted(
            name
            for name, task in storage.tasks.items()
            if not task.grade
            and task.dead is None
            and storage.shard_of(task.open.submission_id) == request.shard
            and (name > after or not request.after_submission_id)
        )
        return pb.ListOpenTasksResponse(
            tasks=[storage.tasks[name].open for name in names[: request.limit]],
            more=len(names) > request.limit,
        )


@asynccontextmanager
async def storage_serving(storage: FakeStorage) -> AsyncGenerator[str]:
    """Serves on a free port; yields "host:port"."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    servicer = cast("Any", storage.servicer())
    add_StorageWriterServiceServicer_to_server(servicer, server)
    add_StorageReaderServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
