"""What must be true of a suite that has come to rest, asked of the suite itself."""

from __future__ import annotations

from cinnabar.gateway.v1.operations_service_pb2 import GetConservationRequest
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar_client import Client
from cinnabar_client.connection import Connection, open_channel
from cinnabar_local.stack import Stack
from tests.support.chaos_oracle import DEAD, OPEN, Account
from tests.support.scheduler_adapters import leaked_keys

TOKEN = "dev.chaos-0.operator.oracle"
CALL_SECONDS = 15.0


async def nothing_queued(stack: Stack) -> bool:
    """Whether Redis holds no task any more, as operators are told."""
    async with Client(stack.addresses.envoy, token=TOKEN, timeout=CALL_SECONDS) as client:
        return not any(queue.ready or queue.delayed or queue.leased for queue in await client.queues())


async def leftovers(stack: Stack, found: Account) -> list[str]:
    """Where the suite's own account differs from the rows of ``found``, and what it forgot to clean up."""
    channel = open_channel(stack.addresses.envoy)
    try:
        connection = Connection(channel, token=TOKEN, timeout=CALL_SECONDS)
        counted = await connection.unary(
            OperationsServiceStub(channel).GetConservation, GetConservationRequest()
        )
    finally:
        await channel.close()
    open_tasks, dead = len(found.in_state(OPEN)), len(found.in_state(DEAD))
    expected = {
        "accepted": len(found.grades) + len(found.tasks),
        "open": open_tasks,
        "dead_lettered": dead,
        "cancelled": len(found.tasks) - open_tasks - dead,
        "graded": len(found.grades),
        "queued": 0,
        "waiting": 0,
        "leased": 0,
        "balanced": True,
    }
    said = {name: getattr(counted, name) for name in expected}
    result = [
        f"conservation says {name} {said[name]}, not {value}"
        for name, value in expected.items()
        if said[name] != value
    ]
    return result + [f"{key} has no TTL" for key in await leaked_keys(stack.addresses.redis_url)]
