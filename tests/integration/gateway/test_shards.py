"""Operators move buckets through the gateway, and everything stays readable."""

import asyncio

import grpc
import pytest

from cinnabar.gateway.v1 import operations_service_pb2 as operations_pb
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar_gateway.consistency import TOKEN_KEY
from tests.support.gateway_suite import PARENT, create_request, real_gateway
from tests.support.gateway_world import INSTRUCTOR, OPERATOR, TENANT, token_from
from tests.support.servers import ShardUrls
from tests.support.storage_service import storage_on
from tests.support.storage_traffic import authors_of
from tests.support.waiting import until

MOVED = [3, 200, 511]


async def test_buckets_move_and_come_back(migrated_shards: list[ShardUrls], valkey_url: str) -> None:
    async with (
        storage_on(migrated_shards, move_poll_seconds=0.05, move_clean_seconds=0.1) as storage,
        real_gateway(storage.address, valkey_url) as real,
    ):
        await real.assignment()

        async def shards() -> operations_pb.ListShardsResponse:
            return await real.operations.ListShards(operations_pb.ListShardsRequest(), metadata=OPERATOR)

        async def still() -> bool:
            return not (await shards()).moves

        async def all_readable() -> None:
            reads = await asyncio.gather(
                *(
                    real.submissions.GetSubmission(
                        pb.GetSubmissionRequest(name=one.name), metadata=(*INSTRUCTOR, *with_token)
                    )
                    for one in made
                    for with_token in ((), ((TOKEN_KEY, token),))
                )
            )
            assert [one.answers for one in reads[::2]] == [one.answers for one in made]
            assert reads[::2] == reads[1::2]
            page = await real.submissions.ListSubmissions(
                pb.ListSubmissionsRequest(parent=PARENT, page_size=50),
                metadata=(*INSTRUCTOR, (TOKEN_KEY, token)),
            )
            assert sorted(one.name for one in page.submissions) == sorted(one.name for one in made)

        made: list[pb.Submission] = []
        token = ""
        for author in authors_of([*MOVED, 4, 700], TENANT, each=2):
            call = real.submissions.CreateSubmission(create_request(author), metadata=INSTRUCTOR)
            made.append(await call)
            token = await token_from(call)
        before = await shards()
        assert [one.buckets for one in before.shards] == [512, 512]
        await real.operations.MoveBuckets(
            operations_pb.MoveBucketsRequest(buckets=MOVED, to_shard=1), metadata=OPERATOR
        )
        await until(still, description="the buckets have moved")
        moved = await shards()
        assert ([one.buckets for one in moved.shards], moved.epoch > before.epoch) == ([509, 515], True)
        await all_readable()
        await real.operations.RebalanceShards(operations_pb.RebalanceShardsRequest(), metadata=OPERATOR)
        await until(still, description="the shares are fair again")
        assert [one.buckets for one in (await shards()).shards] == [512, 512]
        await all_readable()
        for request in (
            operations_pb.MoveBucketsRequest(buckets=[1024], to_shard=1),
            operations_pb.MoveBucketsRequest(buckets=[3], to_shard=2),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await real.operations.MoveBuckets(request, metadata=OPERATOR)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
