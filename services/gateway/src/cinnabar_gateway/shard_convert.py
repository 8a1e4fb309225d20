"""Shards as they travel."""

from __future__ import annotations

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar_gateway.shards import MoveStep, ShardsView

_STEPS: dict[MoveStep, pb.BucketMove.Step.ValueType] = {
    step: pb.BucketMove.Step.Value(step.name) for step in MoveStep
}


def shards(given: ShardsView) -> pb.ListShardsResponse:
    """The shards and the moves."""
    response = pb.ListShardsResponse(epoch=given.epoch)
    for index, shard in enumerate(given.shards):
        added = response.shards.add(index=index, buckets=shard.buckets, reachable=shard.reachable)
        for replica in shard.replicas:
            added.replicas.add(in_rotation=replica.in_rotation, lag_bytes=replica.lag_bytes)
    for bucket, from_shard, to_shard, step in given.moves:
        response.moves.add(bucket=bucket, from_shard=from_shard, to_shard=to_shard, step=_STEPS[step])
    return response
