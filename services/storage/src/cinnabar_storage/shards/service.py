"""Speaks gRPC about shards and moves; knows nothing of Postgres."""

from __future__ import annotations

from typing import Any

import grpc

from cinnabar.storage.v1 import shard_service_pb2 as pb
from cinnabar.storage.v1 import shard_service_pb2_grpc as rpc
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage.shards.moves import MoveStep
from cinnabar_storage.shards.rebalancing import Rebalancing, ShardsStatus

Context = grpc.aio.ServicerContext[Any, Any]
_STEPS: dict[int, pb.MoveStatus.Step.ValueType] = {
    int(step): pb.MoveStatus.Step.Value(step.name) for step in MoveStep
}


class ShardReader(rpc.ShardReaderServiceServicer):
    """The shards as they are."""

    def __init__(self, rebalancing: Rebalancing) -> None:
        self._rebalancing = rebalancing

    async def GetShards(self, request: pb.GetShardsRequest, context: Context) -> pb.ShardsStatus:
        return _status(await self._rebalancing.status())


class ShardWriter(rpc.ShardWriterServiceServicer):
    """Plans of moves."""

    def __init__(self, rebalancing: Rebalancing) -> None:
        self._rebalancing = rebalancing

    async def PlanRebalance(self, request: pb.PlanRebalanceRequest, context: Context) -> pb.ShardsStatus:
        _need_actor(request.actor)
        return _status(await self._rebalancing.rebalance(set(request.drained_shards), request.actor))

    async def PlanMoves(self, request: pb.PlanMovesRequest, context: Context) -> pb.ShardsStatus:
        _need_actor(request.actor)
        return _status(await self._rebalancing.move(set(request.buckets), request.to_shard, request.actor))


def _need_actor(actor: str) -> None:
    if not actor:
        raise InvalidRequest([FieldViolation("actor", "is required")])


def _status(given: ShardsStatus) -> pb.ShardsStatus:
    status = pb.ShardsStatus(epoch=given.epoch)
    for shard in given.shards:
        added = status.shards.add(buckets=shard.buckets, reachable=shard.reachable)
        for replica in shard.replicas:
            added.replicas.add(in_rotation=replica.in_rotation, lag_bytes=replica.lag_bytes)
    for bucket, from_shard, to_shard, step in given.moves:
        status.moves.add(bucket=bucket, from_shard=from_shard, to_shard=to_shard, step=_STEPS[step])
    return status
