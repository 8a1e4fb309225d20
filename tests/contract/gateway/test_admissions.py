"""What admissions promise the gateway: in memory, and as the real service on a real Valkey."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio

from cinnabar.scheduler.v1.admission_service_pb2_grpc import add_AdmissionServiceServicer_to_server
from cinnabar_common.channels import channel
from cinnabar_common.clock import SystemClock
from cinnabar_common.errors import DependencyUnavailable
from cinnabar_common.health import HealthBoard
from cinnabar_common.redis_connection import connect
from cinnabar_common.server import serving
from cinnabar_gateway.adapters.admission_client import AdmissionClient
from cinnabar_gateway.adapters.memory_admission import MemoryAdmissions
from cinnabar_gateway.admission import AdmissionRequest, Admissions, Result, Settlement
from cinnabar_gateway.records import Reservation
from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.adapters.redis_admission import RedisAdmission
from cinnabar_scheduler.admission import Admissions as Scheduler
from cinnabar_scheduler.admission_service import AdmissionService, admission_coalescer
from cinnabar_scheduler.policy import Limit, Policy, TenantPolicy

UNITS = 5
POLICY = Policy(default_tenant=TenantPolicy(method_limits={"Batch": Limit(UNITS, 3600.0)}))


@pytest_asyncio.fixture(params=["memory", "service"])
async def admissions(request: pytest.FixtureRequest, valkey_url: str) -> AsyncGenerator[Admissions]:
    """Of each kind; ann has 5 units of the method Batch."""
    if request.param == "memory":
        memory = MemoryAdmissions()
        memory.left["ann", "Batch"] = UNITS
        yield memory
        return
    redis, clock = connect(valkey_url, timeout_seconds=5), SystemClock()
    scheduler = Scheduler(RedisAdmission(redis, clock), MemoryAdmission(clock), lambda: POLICY, clock)

    async with admission_coalescer(scheduler).running() as asked:

        def register(server: grpc.aio.Server) -> None:
            add_AdmissionServiceServicer_to_server(AdmissionService(scheduler, asked), server)

        async with (
            serving(
                "127.0.0.1:0", register=register, services=[], health=HealthBoard(), grace_seconds=0.1
            ) as port,
            channel(f"127.0.0.1:{port}") as connection,
        ):
            yield AdmissionClient(connection, timeout_seconds=5)
    await redis.aclose()


def ask(
    key: str = "", *, fingerprint: bytes = b"f", cost: int = 0, user: str = "ann", method: str = "Batch"
) -> AdmissionRequest:
    """A request of uni."""
    return AdmissionRequest(
        tenant="uni", user=user, method=method, cost=cost, key=key, fingerprint=fingerprint if key else b""
    )


def reservation(key: str, token: str) -> Reservation:
    return Reservation("uni", "ann", key, token)


async def test_a_key_goes_from_admitted_to_in_progress_to_replay(admissions: Admissions) -> None:
    first, second, other = await admissions.admit([ask("k"), ask("k"), ask("k", fingerprint=b"g")])
    assert (first.result, second.result, other.result) == (
        Result.ADMITTED,
        Result.IN_PROGRESS,
        Result.KEY_REUSED,
    )
    assert first.reservation
    assert not second.reservation
    assert 0 < second.retry_seconds <= 1
    await admissions.settle([Settlement(reservation("k", first.reservation), b"courses/net")])
    [replay] = await admissions.admit([ask("k")])
    assert (replay.result, replay.answer, replay.reservation) == (Result.REPLAY, b"courses/net", "")


async def test_a_settlement_without_the_reservation_changes_nothing(admissions: Admissions) -> None:
    [first] = await admissions.admit([ask("k")])
    await admissions.settle(
        [Settlement(reservation("k", "forged"), b"a"), Settlement(reservation("unknown", "x"), None)]
    )
    assert (await admissions.admit([ask("k")]))[0].result is Result.IN_PROGRESS
    await admissions.settle([Settlement(reservation("k", first.reservation), None)])
    assert (await admissions.admit([ask("k")]))[0].result is Result.ADMITTED


async def test_keys_are_of_a_user(admissions: Admissions) -> None:
    verdicts = await admissions.admit([ask("k"), ask("k", user="bob"), ask("bob\nk")])
    assert [one.result for one in verdicts] == [Result.ADMITTED] * 3


async def test_only_what_is_admitted_is_charged(admissions: Admissions) -> None:
    many = [ask(cost=4), ask(cost=2), ask("k", cost=1), ask("k", cost=1), ask(cost=1)]
    verdicts = await admissions.admit(many)
    assert [one.result for one in verdicts] == [
        Result.ADMITTED,
        Result.LIMITED,
        Result.ADMITTED,
        Result.IN_PROGRESS,
        Result.LIMITED,
    ]
    refused = verdicts[1]
    assert refused.retry_seconds > 0
    assert refused.limit is not None
    assert (refused.limit.level, refused.limit.remaining) == ("user-method", 1)
    assert (await admissions.admit([ask(cost=0)]))[0].result is Result.ADMITTED
    assert (await admissions.admit([ask(cost=6, user="bob", method="Other")]))[0].result is Result.ADMITTED


async def test_a_scheduler_that_is_not_there_is_told_at_once() -> None:
    async with channel("127.0.0.1:1") as connection:
        client = AdmissionClient(connection, timeout_seconds=0.2)
        with pytest.raises(DependencyUnavailable):
            await client.admit([ask("k")])
        with pytest.raises(DependencyUnavailable):
            await client.settle([Settlement(reservation("k", "r"), b"a")])
