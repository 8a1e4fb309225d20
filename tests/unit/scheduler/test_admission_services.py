"""Both services of admission over gRPC: what they answer, and what they refuse."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from cinnabar.external import envoy_ratelimit_pb2 as rls
from cinnabar.external.envoy_ratelimit_descriptor_pb2 import RateLimitDescriptor
from cinnabar.external.envoy_ratelimit_pb2_grpc import (
    RateLimitServiceStub,
    add_RateLimitServiceServicer_to_server,
)
from cinnabar.scheduler.v1 import admission_service_pb2 as pb
from cinnabar.scheduler.v1.admission_service_pb2_grpc import (
    AdmissionServiceStub,
    add_AdmissionServiceServicer_to_server,
)
from cinnabar_common.channels import channel
from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving
from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.admission import Admissions
from cinnabar_scheduler.admission_service import AdmissionService, admission_coalescer
from cinnabar_scheduler.policy import Limit, Policy
from cinnabar_scheduler.ratelimit_service import RateLimitService
from tests.support.gateway_world import refusal_of
from tests.support.scheduler_admission import Breakable
from tests.support.scheduler_queue import ManualClock

if TYPE_CHECKING:
    from cinnabar.external.envoy_ratelimit_pb2_grpc import RateLimitServiceAsyncStub
    from cinnabar.scheduler.v1.admission_service_pb2_grpc import AdmissionServiceAsyncStub

Code = rls.RateLimitResponse.Code
Unit = rls.RateLimitResponse.RateLimit.Unit


@dataclass(slots=True)
class Served:
    """Both services on one store that can be taken away."""

    admission: AdmissionServiceAsyncStub
    limits: RateLimitServiceAsyncStub
    store: Breakable
    clock: ManualClock


@pytest_asyncio.fixture
async def served() -> AsyncGenerator[Served]:
    clock = ManualClock()
    store = Breakable(MemoryAdmission(clock))
    policy = Policy(anonymous_limit=Limit(2, 3600.0))
    admissions = Admissions(store, MemoryAdmission(clock), lambda: policy, clock)
    async with admission_coalescer(admissions).running() as asked:

        def register(server: grpc.aio.Server) -> None:
            add_AdmissionServiceServicer_to_server(AdmissionService(admissions, asked), server)
            add_RateLimitServiceServicer_to_server(RateLimitService(asked), server)

        async with (
            serving(
                "127.0.0.1:0", register=register, services=[], health=HealthBoard(), grace_seconds=0.1
            ) as port,
            channel(f"127.0.0.1:{port}") as connection,
        ):
            yield Served(AdmissionServiceStub(connection), RateLimitServiceStub(connection), store, clock)


def admission(**changes: object) -> pb.Admission:
    settings: dict[str, object] = {"tenant": "uni", "user": "ann", "method": "CreateSubmission"}
    return pb.Admission(**(settings | changes))  # pyright: ignore[reportArgumentType]


def descriptor(**entries: str) -> RateLimitDescriptor:
    message = RateLimitDescriptor()
    for key, value in entries.items():
        message.entries.add(key=key, value=value)
    return message


def asked(hits: int = 0, **entries: str) -> rls.RateLimitRequest:
    entries = entries or {"tenant": "uni", "user": "ann", "method": "/x.Submissions/CreateSubmission"}
    return rls.RateLimitRequest(domain="cinnabar", descriptors=[descriptor(**entries)], hits_addend=hits)


async def test_admission_answers_in_order_and_settles(served: Served) -> None:
    request = pb.AdmitRequest(
        admissions=[admission(key="k", fingerprint=b"f", cost=1), admission(cost=100), admission(cost=101)]
    )
    first, limited, never = (await served.admission.Admit(request)).verdicts
    assert (first.result, first.limit.remaining) == (pb.Verdict.ADMITTED, 99)
    assert (limited.result, limited.retry_after.ToMilliseconds()) == (pb.Verdict.LIMITED, 600)
    assert (limited.limit.level, limited.limit.period.seconds) == ("user-method", 60)
    assert (never.result, never.retry_after.ToMilliseconds()) == (pb.Verdict.LIMITED, 60_000)
    settlement = pb.Settlement(
        tenant="uni", user="ann", key="k", reservation=first.reservation, answer=b"\x00\xff"
    )
    settled = await served.admission.Settle(pb.SettleRequest(settlements=[settlement]))
    again = await served.admission.Settle(pb.SettleRequest(settlements=[settlement]))
    assert (settled.settled, again.settled) == (1, 0)
    response = await served.admission.Admit(
        pb.AdmitRequest(admissions=[admission(key="k", fingerprint=b"f")])
    )
    assert (response.verdicts[0].result, response.verdicts[0].answer) == (pb.Verdict.REPLAY, b"\x00\xff")


async def test_without_the_store_everything_is_admitted_and_says_so(served: Served) -> None:
    served.store.broken = True
    request = pb.AdmitRequest(admissions=[admission(key="k", fingerprint=b"f", cost=1)] * 101)
    verdicts = (await served.admission.Admit(request)).verdicts
    assert [one.result for one in verdicts] == [pb.Verdict.ADMITTED] * 100 + [pb.Verdict.LIMITED]
    assert all(one.degraded and not one.reservation for one in verdicts)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (admission(tenant=""), "tenant"),
        (admission(user="Ann"), "user"),
        (admission(method=""), "method"),
        (admission(cost=-1), "cost"),
        (admission(key="k"), "fingerprint"),
        (admission(key="k" * 257, fingerprint=b"f"), "key"),
        (admission(fingerprint=b"f" * 65), "fingerprint"),
    ],
)
async def test_a_bad_admission_is_refused_with_its_place(
    served: Served, bad: pb.Admission, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.admission.Admit(pb.AdmitRequest(admissions=[admission(cost=100), bad]))
    refusal = refusal_of(raised.value)
    assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (f"admissions[1].{field}",))
    good = await served.admission.Admit(pb.AdmitRequest(admissions=[admission(cost=100)]))
    assert good.verdicts[0].result == pb.Verdict.ADMITTED  # nothing was charged


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (pb.Settlement(tenant="", user="ann", key="k", reservation="r", released=True), "tenant"),
        (pb.Settlement(tenant="uni", user="ann", reservation="r", released=True), "key"),
        (pb.Settlement(tenant="uni", user="ann", key="k", released=True), "reservation"),
        (pb.Settlement(tenant="uni", user="ann", key="k", reservation="r"), "end"),
        (pb.Settlement(tenant="uni", user="ann", key="k", reservation="r", released=False), "end"),
        (pb.Settlement(tenant="uni", user="ann", key="k", reservation="r", answer=b"a" * 4097), "answer"),
    ],
)
async def test_a_bad_settlement_is_refused_with_its_place(
    served: Served, bad: pb.Settlement, field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.admission.Settle(pb.SettleRequest(settlements=[bad]))
    assert refusal_of(raised.value).fields == (f"settlements[0].{field}",)


@pytest.mark.parametrize("count", [0, 10_001])
async def test_too_many_or_none_are_refused(served: Served, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.admission.Admit(pb.AdmitRequest(admissions=[admission()] * count))
    assert refusal_of(raised.value).fields == ("admissions",)


async def test_the_edge_is_told_where_the_caller_stands(served: Served) -> None:
    response = await served.limits.ShouldRateLimit(asked())
    assert response.overall_code == Code.OK
    [status] = response.statuses
    assert (status.code, status.limit_remaining, status.duration_until_reset.ToMilliseconds()) == (
        Code.OK,
        99,
        600,
    )
    current = status.current_limit
    assert (current.requests_per_unit, current.unit, current.name) == (100, Unit.MINUTE, "user-method")
    assert {header.key: header.value for header in response.response_headers_to_add} == {
        "x-ratelimit-limit": "100",
        "x-ratelimit-remaining": "99",
        "x-ratelimit-reset": "1",
    }


async def test_over_the_limit_the_edge_gets_the_error_in_every_form(served: Served) -> None:
    await served.limits.ShouldRateLimit(asked(hits=100))
    response = await served.limits.ShouldRateLimit(asked())
    assert (response.overall_code, response.statuses[0].code) == (Code.OVER_LIMIT, Code.OVER_LIMIT)
    headers = {header.key: header.value for header in response.response_headers_to_add}
    packed = headers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(retry)
    assert (status.code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], "RATE_LIMITED")
    assert dict(info.metadata) == {"level": "user-method", "limit": "100", "period_seconds": "60"}
    assert retry.retry_delay.ToMilliseconds() == 600
    assert (headers["retry-after"], headers["x-ratelimit-remaining"]) == ("1", "0")
    assert response.raw_body.decode() == status.message
    assert dict(response.dynamic_metadata)["retry_delay"] == "0.600000s"


async def test_of_several_descriptors_one_is_enough_to_refuse(served: Served) -> None:
    request = asked()
    request.descriptors.append(descriptor(anonymous="yes", remote_address="10.0.0.1"))
    codes: list[int] = []
    for _ in range(3):
        response = await served.limits.ShouldRateLimit(request)
        codes.append(response.overall_code)
    assert codes == [Code.OK, Code.OK, Code.OVER_LIMIT]
    assert [status.code for status in response.statuses] == [Code.OK, Code.OVER_LIMIT]  # pyright: ignore[reportPossiblyUnboundVariable]
    assert response.statuses[1].current_limit.unit == Unit.HOUR  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize(
    "bad",
    [
        rls.RateLimitRequest(domain="other", descriptors=asked().descriptors),
        rls.RateLimitRequest(domain="cinnabar"),
        rls.RateLimitRequest(domain="cinnabar", descriptors=list(asked().descriptors) * 11),
        asked(tenant="uni", user="ann"),
        asked(tenant="UNI", user="ann", method="m"),
        asked(anonymous="yes"),
        asked(anonymous="yes", remote_address="x" * 257),
        asked(tenant="uni", user="ann", method="m", remote_address="10.0.0.1"),
    ],
)
async def test_a_bad_question_of_the_edge_is_refused(served: Served, bad: rls.RateLimitRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await served.limits.ShouldRateLimit(bad)
    assert refusal_of(raised.value).reason == "INVALID_REQUEST"
