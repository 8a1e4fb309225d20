"""The storage service, as the domain's store of shards."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

import grpc

from cinnabar.storage.v1 import shard_service_pb2 as pb
from cinnabar.storage.v1.shard_service_pb2_grpc import ShardReaderServiceStub, ShardWriterServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.shards import BucketMove, MoveStep, Replica, Shard, ShardsView


class ShardClient:
    """Implements the port ShardStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._reader = ShardReaderServiceStub(channel)
        self._writer = ShardWriterServiceStub(channel)
        self._timeout = timeout_seconds

    async def shards(self) -> ShardsView:
        return await _view(
            self._reader.GetShards(pb.GetShardsRequest(), timeout=deadlines.within(self._timeout))
        )

    async def rebalance(self, drained: Sequence[int], actor: str) -> ShardsView:
        request = pb.PlanRebalanceRequest(drained_shards=drained, actor=actor)
        return await _view(self._writer.PlanRebalance(request, timeout=deadlines.within(self._timeout)))

    async def move_buckets(self, buckets: Sequence[int], to_shard: int, actor: str) -> ShardsView:
        request = pb.PlanMovesRequest(buckets=buckets, to_shard=to_shard, actor=actor)
        return await _view(self._writer.PlanMoves(request, timeout=deadlines.within(self._timeout)))


async def _view(call: Awaitable[pb.ShardsStatus]) -> ShardsView:
    try:
        status = await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, "storage") from error
    return ShardsView(
        [
            Shard(
                shard.buckets,
                shard.reachable,
                [
                    Replica(one.in_rotation, one.lag_bytes if one.HasField("lag_bytes") else None)
                    for one in shard.replicas
                ],
            )
            for shard in status.shards
        ],
        status.epoch,
        [
            BucketMove(move.bucket, move.from_shard, move.to_shard, MoveStep(move.step))
            for move in status.moves
        ],
    )
