"""Ask a server whether it serves. Each probe asks once and raises NotReady with the reason.

The clients of HTTP and Redis take a while to import, which commands that start nothing need not wait for.
"""

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from cinnabar_local import sql


class NotReady(Exception):
    """The server does not serve yet."""


async def grpc_serving(target: str, *, service: str = "") -> None:
    """``grpc.health.v1`` says SERVING for ``service`` ("" is the whole server) at ``host:port``."""
    async with grpc.aio.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=2.0)
        except grpc.aio.AioRpcError as error:
            raise NotReady(f"{target}: {error.code().name} {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotReady(f"{target}: health is {answer.status}, not SERVING")


async def http_answers(url: str, *, statuses: frozenset[int] = frozenset({200})) -> None:
    """GET ``url`` answers with one of ``statuses``."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session,
            session.get(url) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, OSError) as error:
        raise NotReady(f"{url}: {error}") from error
    if status not in statuses:
        raise NotReady(f"{url}: status {status}")


async def postgres_answers(url: str) -> None:
    """The database at ``url`` accepts a connection and a query."""
    try:
        async with sql.connected(url, timeout=2.0) as connection:
            await connection.execute("SELECT 1")
    except sql.Unreachable as error:
        raise NotReady(str(error)) from error


async def redis_answers(url: str) -> None:
    """The Redis at ``url`` answers PING."""
    import redis.asyncio
    import redis.exceptions

    client = redis.asyncio.from_url(url, socket_timeout=2.0)  # pyright: ignore[reportUnknownMemberType]
    try:
        await client.ping()  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]
    except (redis.exceptions.RedisError, OSError) as error:
        raise NotReady(str(error)) from error
    finally:
        await client.aclose()


async def envoy_sees_healthy(admin_url: str, cluster: str) -> None:
    """Envoy, asked at its admin interface, has at least one healthy host in ``cluster``."""
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session,
            session.get(f"{admin_url}/stats?filter=^cluster.{cluster}.membership_healthy$") as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, OSError) as error:
        raise NotReady(f"{admin_url}: {error}") from error
    if not text.strip() or text.split()[-1] == "0":
        raise NotReady(f"no healthy host in {cluster}")
