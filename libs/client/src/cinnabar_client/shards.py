"""Calls about shards and moves of buckets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar_client.connection import Connection

if TYPE_CHECKING:  # the generated module has it for type checkers only
    from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub


class ShardCalls:
    """The part of the client that these calls make up. Every method raises ApiError; operators only.

    Each returns the shards by index, the epoch of the bucket map, and the moves that are not done, in the
    order they are made. Storage makes moves in the background, whoever asked for them.
    """

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    @property
    def _operations(self) -> OperationsServiceAsyncStub:
        return OperationsServiceStub(self._connection.channel)

    async def list_shards(self) -> pb.ListShardsResponse:
        """The shards as they are."""
        return await self._connection.unary(self._operations.ListShards, pb.ListShardsRequest())

    async def rebalance_shards(self, *, drained: Sequence[int] = ()) -> pb.ListShardsResponse:
        """Plans the fewest moves that give every shard its fair share, and ``drained`` ones nothing.

        ``drained`` are indexes of shards. INVALID_ARGUMENT when there is no such shard, or none would be
        left. Planned moves that have not begun give way to the new plan; repeating the call is safe.
        """
        request = pb.RebalanceShardsRequest(drained_shards=drained)
        return await self._connection.unary(self._operations.RebalanceShards, request)

    async def move_buckets(self, buckets: Sequence[int], to_shard: int) -> pb.ListShardsResponse:
        """Plans moves of ``buckets`` (0 to 1,023) to the shard of this index; those that it owns stay.

        INVALID_ARGUMENT when there is no such bucket or shard, FAILED_PRECONDITION / STATE_FORBIDS when the
        move of one to another place has begun.
        """
        request = pb.MoveBucketsRequest(buckets=buckets, to_shard=to_shard)
        return await self._connection.unary(self._operations.MoveBuckets, request)
