"""Servers are started under a user of their own while the runner talks gRPC."""

import asyncio
import sys

# In a process of its own: gRPC reads how it should behave around forks once.
_FORKS = """
import cinnabar_local
import asyncio, os, grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

async def main():
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async def talk():
            while True:
                await stub.Check(health_pb2.HealthCheckRequest())
        talking = [asyncio.create_task(talk()) for _ in range(4)]
        for _ in range(100):
            child = await asyncio.create_subprocess_exec("/bin/true", user=os.getuid())
            print(await child.wait())
        for one in talking:
            one.cancel()
        await asyncio.wait(talking)
    await server.stop(0)

asyncio.run(main())
"""


async def test_no_child_is_harmed_by_grpc_in_its_parent() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _FORKS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert output.split() == [b"0"] * 100
