"""What operators do with the gateway in memory."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import operations_service_pb2_grpc as operations_grpc
from cinnabar.gateway.v1.operations_service_pb2 import BucketMove, Erasure, Queue
from cinnabar_common.errors import ResourceNotFound, SuiteError
from cinnabar_common.names import BUCKETS
from cinnabar_storage.shards.moves import Move, moved_to, rebalanced
from tests.support.client_gateway_calls import Context, MemoryCalls


@dataclass
class MemoryOperations(MemoryCalls, operations_grpc.OperationsServiceServicer):
    """``counted`` are the answers of GetConservation, the last one again and again.

    There are two shards, ``owners`` are those of the buckets; each ListShards makes up to ``pace`` moves.
    """

    healthy: bool = True
    queues: list[Queue] = field(default_factory=list[Queue])
    counted: deque[operations_pb.Conservation] = field(default_factory=deque[operations_pb.Conservation])
    redriven: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    letters: list[operations_pb.DeadLetter] = field(default_factory=list[operations_pb.DeadLetter])
    erasures: dict[str, Erasure] = field(default_factory=dict[str, Erasure])
    owners: list[int] = field(default_factory=lambda: [bucket * 2 // BUCKETS for bucket in range(BUCKETS)])
    moves: list[Move] = field(default_factory=list[Move])
    epoch: int = 1
    pace: int = 1

    async def ListQueues(
        self, request: operations_pb.ListQueuesRequest, context: Context
    ) -> operations_pb.ListQueuesResponse:
        self._enter("ListQueues", context)
        return operations_pb.ListQueuesResponse(queues=self.queues)

    async def PauseQueue(self, request: operations_pb.PauseQueueRequest, context: Context) -> Queue:
        self._enter("PauseQueue", context)
        return self._control(request.queue, Queue.PAUSED)

    async def ResumeQueue(self, request: operations_pb.ResumeQueueRequest, context: Context) -> Queue:
        self._enter("ResumeQueue", context)
        return self._control(request.queue, Queue.RUNNING)

    async def DrainQueue(self, request: operations_pb.DrainQueueRequest, context: Context) -> Queue:
        self._enter("DrainQueue", context)
        return self._control(request.queue, Queue.DRAINING)

    def _control(self, name: str, state: Queue.State.ValueType) -> Queue:
        found = next((queue for queue in self.queues if queue.queue == name), None)
        if found is None:
            raise ResourceNotFound(f"queues/{name}")
        found.state = state
        return found

    async def GetConservation(
        self, request: operations_pb.GetConservationRequest, context: Context
    ) -> operations_pb.Conservation:
        self._enter("GetConservation", context)
        return self.counted.popleft() if len(self.counted) > 1 else self.counted[0]

    async def ListDeadLetters(
        self, request: operations_pb.ListDeadLettersRequest, context: Context
    ) -> operations_pb.ListDeadLettersResponse:
        self._enter("ListDeadLetters", context)
        found = self._letters(request)
        start, following = self._page(request.page_token, len(found))
        return operations_pb.ListDeadLettersResponse(
            dead_letters=found[start : start + self.page], next_page_token=following
        )

    def _letters(self, request: operations_pb.ListDeadLettersRequest) -> list[operations_pb.DeadLetter]:
        return [
            letter
            for letter in self.letters
            if request.queue in ("", letter.queue)
            and letter.submission.startswith(request.parent)
            and request.reason in letter.reason
        ]

    async def RedriveDeadLetters(
        self, request: operations_pb.RedriveDeadLettersRequest, context: Context
    ) -> operations_pb.RedriveDeadLettersResponse:
        """Tasks that are redriven stay on the list, as if they were given up again at once."""
        self._enter("RedriveDeadLetters", context)
        if request.HasField("filter"):
            found = self._letters(request.filter)[: self.page]
            self.redriven += [(letter.submission, letter.item) for letter in found]
            more = len(self._letters(request.filter)) > self.page
            return operations_pb.RedriveDeadLettersResponse(redriven=len(found), more=more)
        response = operations_pb.RedriveDeadLettersResponse()
        dead = {(letter.submission, letter.item) for letter in self.letters}
        for task in request.tasks:
            if (task.submission, task.item) in dead:
                self.redriven.append((task.submission, task.item))
                response.redriven += 1
            else:
                error = ResourceNotFound(f"{task.submission}/items/{task.item}")
                response.refused.add(task=task, error=error.to_status())
        return response

    async def GetHealth(
        self, request: operations_pb.GetHealthRequest, context: Context
    ) -> operations_pb.HealthReport:
        self._enter("GetHealth", context)
        report = operations_pb.HealthReport(status="healthy" if self.healthy else "unhealthy")
        report.checks.add(name="storage", status=report.status)
        if not self.healthy:
            raise _Unhealthy(report)
        return report

    async def ListModelProviders(
        self, request: operations_pb.ListModelProvidersRequest, context: Context
    ) -> operations_pb.ListModelProvidersResponse:
        self._enter("ListModelProviders", context)
        return operations_pb.ListModelProvidersResponse()

    async def ListShards(
        self, request: operations_pb.ListShardsRequest, context: Context
    ) -> operations_pb.ListShardsResponse:
        self._enter("ListShards", context)
        made, self.moves = self.moves[: self.pace], self.moves[self.pace :]
        for move in made:
            self.owners[move.bucket] = move.to_shard
            self.epoch += 1
        return self._shards()

    async def RebalanceShards(
        self, request: operations_pb.RebalanceShardsRequest, context: Context
    ) -> operations_pb.ListShardsResponse:
        self._enter("RebalanceShards", context)
        self.moves = rebalanced(self.owners, 2, request.drained_shards)
        return self._shards()

    async def MoveBuckets(
        self, request: operations_pb.MoveBucketsRequest, context: Context
    ) -> operations_pb.ListShardsResponse:
        self._enter("MoveBuckets", context)
        self.moves += moved_to(self.owners, 2, request.buckets, request.to_shard)
        return self._shards()

    def _shards(self) -> operations_pb.ListShardsResponse:
        """The second shard's replica does not answer."""
        response = operations_pb.ListShardsResponse(epoch=self.epoch)
        for index in range(2):
            added = response.shards.add(index=index, buckets=self.owners.count(index), reachable=self.healthy)
            added.replicas.add(in_rotation=not index, lag_bytes=None if index else 0)
        for bucket, source, target, _ in self.moves:
            response.moves.add(bucket=bucket, from_shard=source, to_shard=target, step=BucketMove.PLANNED)
        return response

    async def VerifyAudit(
        self, request: operations_pb.VerifyAuditRequest, context: Context
    ) -> operations_pb.VerifyAuditResponse:
        """Nothing is under a seal here."""
        self._enter("VerifyAudit", context)
        return operations_pb.VerifyAuditResponse(unsealed=len(self.redriven))

    async def GetErasure(self, request: operations_pb.GetErasureRequest, context: Context) -> Erasure:
        self._enter("GetErasure", context)
        if request.name not in self.erasures:
            raise ResourceNotFound(request.name)
        return self.erasures[request.name]

    def _erased(self, reason: str, submissions: int, grades: int) -> Erasure:
        name = f"erasures/e{len(self.erasures)}"
        made = Erasure(name=name, state=Erasure.ERASED, reason=reason, submissions=submissions, grades=grades)
        self.erasures[name] = made
        return made


class _Unhealthy(SuiteError):
    """the suite is not healthy"""

    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, report: operations_pb.HealthReport) -> None:
        super().__init__()
        self._report = report

    def _details(self) -> Sequence[Any]:
        return [self._report]
