"""A server that leaves: what callers see until it is gone."""

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving
from tests.support.waiting import until

DRAIN_SECONDS = 0.5


async def test_calls_are_taken_while_balancers_look_away() -> None:
    leave, left = asyncio.Event(), asyncio.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with serving(
            "127.0.0.1:0",
            register=lambda _: None,
            services=(),
            health=HealthBoard({}),
            grace_seconds=0.1,
            drain_seconds=DRAIN_SECONDS,
        ) as port:
            ports.append(port)
            await leave.wait()
        left.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        await until(lambda: bool(ports), "it serves")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )

            async def says(status: int) -> bool:
                answer = await check(health_pb2.HealthCheckRequest(), timeout=5.0)
                return answer.status == status

            assert await says(health_pb2.HealthCheckResponse.SERVING)
            leave.set()
            await until(
                lambda: says(health_pb2.HealthCheckResponse.NOT_SERVING), "it takes calls, and says to go"
            )
            assert not left.is_set()
            await left.wait()
