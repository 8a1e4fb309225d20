"""A grader whose scheduler cannot be asked about model calls decides by breakers of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio

from cinnabar.scheduler.v1.model_call_service_pb2_grpc import add_ModelCallServiceServicer_to_server
from cinnabar_common.channels import channel
from cinnabar_grader.adapters.memory_model_calls import MemoryModelCalls
from cinnabar_grader.adapters.model_calls import SchedulerModelCalls
from cinnabar_grader.graders import LeaseToken
from cinnabar_grader.llm.ports import (
    BREAKER_FAILURES,
    BreakerState,
    Call,
    Denied,
    Failure,
    LeaseNotHeld,
    Permit,
    Success,
)
from tests.support.model_calls import ModelCallsOverWire
from tests.support.scheduler_queue import ManualClock

LEASE = LeaseToken("1-a")
CALL = Call(provider="p", tokens=10, timeout=5.0)


@pytest_asyncio.fixture
async def service() -> AsyncGenerator[tuple[ModelCallsOverWire, SchedulerModelCalls, ManualClock]]:
    clock = ManualClock()
    servicer = ModelCallsOverWire(MemoryModelCalls(clock=clock))
    server = grpc.aio.server()
    add_ModelCallServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with channel(f"127.0.0.1:{port}") as connection:
        yield servicer, SchedulerModelCalls([connection], clock=clock), clock
    await server.stop(None)


async def test_calls_go_on_while_nobody_can_be_asked(
    service: tuple[ModelCallsOverWire, SchedulerModelCalls, ManualClock],
) -> None:
    servicer, calls, _ = service
    servicer.away = True
    permit = await calls.begin(LEASE, CALL)
    assert isinstance(permit, Permit)
    assert await calls.end(permit, Success()) is BreakerState.CLOSED


async def test_its_own_breaker_has_heard_of_all_calls(
    service: tuple[ModelCallsOverWire, SchedulerModelCalls, ManualClock],
) -> None:
    servicer, calls, clock = service
    for _ in range(BREAKER_FAILURES):
        permit = await calls.begin(LEASE, CALL)
        assert isinstance(permit, Permit)
        await calls.end(permit, Failure())
    servicer.away = True
    assert isinstance(await calls.begin(LEASE, CALL), Denied)
    clock.advance(60)
    probe = await calls.begin(LEASE, CALL)
    assert isinstance(probe, Permit)
    assert probe.probe
    assert await calls.end(probe, Success()) is BreakerState.CLOSED
    servicer.away = False
    shared = await calls.begin(LEASE, CALL)
    assert isinstance(shared, Permit)
    assert shared.probe, "the others have not heard of it yet"


async def test_an_end_that_cannot_be_told_is_not_an_error(
    service: tuple[ModelCallsOverWire, SchedulerModelCalls, ManualClock],
) -> None:
    servicer, calls, _ = service
    permit = await calls.begin(LEASE, CALL)
    assert isinstance(permit, Permit)
    servicer.away = True
    assert await calls.end(permit, Success()) is BreakerState.CLOSED


async def test_a_lease_is_looked_for_at_every_scheduler() -> None:
    class Stranger(MemoryModelCalls):
        """Knows no lease."""

    clock = ManualClock()
    known = ModelCallsOverWire(MemoryModelCalls(clock=clock))
    unknown = ModelCallsOverWire(Stranger(clock=clock, owner_of=lambda lease: None))
    server, other = grpc.aio.server(), grpc.aio.server()
    add_ModelCallServiceServicer_to_server(unknown, server)
    add_ModelCallServiceServicer_to_server(known, other)
    ports = [one.add_insecure_port("127.0.0.1:0") for one in (server, other)]
    for one in (server, other):
        await one.start()
    async with channel(f"127.0.0.1:{ports[0]}") as first, channel(f"127.0.0.1:{ports[1]}") as second:
        assert isinstance(await SchedulerModelCalls([first, second]).begin(LEASE, CALL), Permit)
        with pytest.raises(LeaseNotHeld):
            await SchedulerModelCalls([first]).begin(LEASE, CALL)
    for one in (server, other):
        await one.stop(None)
