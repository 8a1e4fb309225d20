"""Limits at the edge: a real Envoy asks the real rate limit service; time stands still."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio

from cinnabar.external.envoy_ratelimit_pb2_grpc import add_RateLimitServiceServicer_to_server
from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2_grpc as rpc
from cinnabar_common.health import HealthBoard
from cinnabar_common.server import serving as grpc_serving
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.probes import envoy_sees_healthy
from cinnabar_local.servers import Endpoint, Envoy
from cinnabar_scheduler.adapters.memory_admission import MemoryAdmission
from cinnabar_scheduler.admission import Admissions
from cinnabar_scheduler.admission_service import admission_coalescer
from cinnabar_scheduler.policy import Limit, Policy
from cinnabar_scheduler.ratelimit_service import RateLimitService
from tests.e2e.stack.edge import Gateway, gateway
from tests.support.gateway_world import refusal_of
from tests.support.scheduler_queue import ManualClock
from tests.support.waiting import until

PARENT = "/v1/courses/c/assignments/a/submissions"


@asynccontextmanager
async def limiter(listen: str, admissions: Admissions) -> AsyncGenerator[int]:
    """The scheduler's rate limit service."""
    async with (
        admission_coalescer(admissions).running() as asked,
        grpc_serving(
            listen,
            register=lambda server: add_RateLimitServiceServicer_to_server(RateLimitService(asked), server),
            services=[],
            health=HealthBoard(),
            grace_seconds=0.1,
        ) as port,
    ):
        yield port


@dataclass(slots=True, kw_only=True)
class Edge:
    """Envoy in front of a gateway, with the limits of ``policy``."""

    url: str
    admin_url: str
    gateway: Gateway
    clock: ManualClock
    policy: Policy
    http: aiohttp.ClientSession
    channel: grpc.aio.Channel

    @property
    def stub(self) -> "rpc.SubmissionServiceAsyncStub":
        """The gateway's SubmissionService."""
        return rpc.SubmissionServiceStub(self.channel)

    async def call(
        self, method: str, path: str, *, user: str = "", **options: Any
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and decoded JSON."""
        headers = credential(user) if user else {}
        async with self.http.request(
            method, self.url + path, headers=headers | options.pop("headers", {}), **options
        ) as answer:
            return answer.status, answer.headers.copy(), json.loads(await answer.text() or "null")

    async def limited_again(self) -> None:
        """Waits until Envoy asks the service."""

        async def told() -> bool:
            _, headers, _ = await self.call("GET", f"{PARENT}/1", user=new_user())
            return "x-ratelimit-limit" in headers

        await until(told, "Envoy asks for limits")


def new_user() -> str:
    return f"u-{uuid4().hex[:12]}"


def credential(user: str, tenant: str = "uni") -> dict[str, str]:
    return {"authorization": f"Bearer dev.{tenant}.student.{user}"}


def told(headers: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset"))


@pytest_asyncio.fixture(scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Edge]:
    folder, ports, clock = tmp_path_factory.mktemp("limits"), Ports(), ManualClock()
    made: list[Edge] = []
    admissions = Admissions(
        MemoryAdmission(clock), MemoryAdmission(clock), lambda: made[0].policy if made else Policy(), clock
    )
    async with AsyncExitStack() as exits:
        one = await exits.enter_async_context(gateway())
        port = await exits.enter_async_context(limiter("127.0.0.1:0", admissions))
        envoy = Envoy(
            name="envoy",
            folder=folder / "envoy",
            port=ports.of("envoy"),
            admin_port=ports.of("admin"),
            gateways=(Endpoint(host="127.0.0.1", port=one.port),),
            schedulers=(Endpoint(host="127.0.0.1", port=port),),
        )
        await exits.enter_async_context(serving(envoy.process(), logs=folder / "logs"))
        target = f"127.0.0.1:{envoy.port}"
        http = await exits.enter_async_context(aiohttp.ClientSession())
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(target))
        made.append(
            Edge(
                url=f"http://{target}",
                admin_url=envoy.admin_url,
                gateway=one,
                clock=clock,
                policy=Policy(),
                http=http,
                channel=channel,
            )
        )
        await made[0].limited_again()
        yield made[0]


async def test_the_101st_submit_of_a_minute_is_refused_over_rest(edge: Edge) -> None:
    user = new_user()
    before = len(edge.gateway.submissions.received)
    answers = [await edge.call("POST", PARENT, user=user, json={"author": user}) for _ in range(100)]
    assert [status for status, _, _ in answers] == [200] * 100
    assert [told(headers) for _, headers, _ in answers] == [
        ("100", str(99 - number), str(-(-(number + 1) * 6 // 10))) for number in range(100)
    ]
    status, headers, body = await edge.call("POST", PARENT, user=user, json={"author": user})
    assert (status, told(headers), headers["retry-after"]) == (429, ("100", "0", "60"), "1")
    assert headers["content-type"] == "application/json"
    assert body == {
        "code": 8,
        "message": "the user-method limit of 100 in 60 s is used up: try again later",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "RATE_LIMITED",
                "domain": "cinnabar.dev",
                "metadata": {"level": "user-method", "limit": "100", "period_seconds": "60"},
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.600000s"},
        ],
    }
    assert len(edge.gateway.submissions.received) == before + 100
    edge.clock.advance(0.6)
    status, _, _ = await edge.call("POST", PARENT, user=user, json={"author": user})
    assert status == 200


async def test_grpc_and_rest_share_a_limit_and_grpc_gets_a_typed_error(edge: Edge) -> None:
    user = new_user()
    metadata = tuple(credential(user).items())
    for _ in range(60):
        await edge.call("POST", PARENT, user=user, json={"author": user})
    for number in range(40):
        call = edge.stub.CreateSubmission(pb.CreateSubmissionRequest(), metadata=metadata)
        await call
        assert dict(await call.initial_metadata())["x-ratelimit-remaining"] == str(39 - number)
    call = edge.stub.CreateSubmission(pb.CreateSubmissionRequest(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.reason, refusal.retry_after) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        0.6,
    )
    assert refusal.metadata == {"level": "user-method", "limit": "100", "period_seconds": "60"}
    assert raised.value.details() == refusal.message
    seen = {**dict(await call.initial_metadata()), **dict(raised.value.trailing_metadata())}
    assert (seen["retry-after"], seen["x-ratelimit-remaining"]) == ("1", "0")


async def test_grpc_web_gets_the_refusal_too(edge: Edge) -> None:
    user = new_user()
    for _ in range(100):
        await edge.call("POST", PARENT, user=user, json={"author": user})
    headers = {"content-type": "application/grpc-web+proto", "origin": "http://localhost:3000"}
    path = "/cinnabar.gateway.v1.SubmissionService/CreateSubmission"
    async with edge.http.post(edge.url + path, data=b"\0" * 5, headers=credential(user) | headers) as answer:
        await answer.read()
    # Envoy knows gRPC-Web by its translation of HTTP codes only, in which 429 is UNAVAILABLE.
    assert (answer.status, answer.headers["grpc-status"], answer.headers["retry-after"]) == (429, "14", "1")
    assert answer.headers["grpc-status-details-bin"]
    exposed = answer.headers["access-control-expose-headers"]
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"} <= set(
        exposed.split(", ")
    )


async def test_users_and_methods_have_their_own_limits(edge: Edge) -> None:
    user, other = new_user(), new_user()
    for _ in range(100):
        await edge.call("POST", PARENT, user=user, json={"author": user})
    assert (await edge.call("POST", PARENT, user=other, json={"author": other}))[0] == 200
    status, headers, _ = await edge.call("GET", f"{PARENT}/1", user=user)
    assert (status, headers["x-ratelimit-limit"]) == (200, "600000")


async def test_every_answer_has_the_headers_also_an_error_of_the_gateway(edge: Edge) -> None:
    status, headers, body = await edge.call("GET", f"{PARENT}/missing", user=new_user())
    assert (status, body["code"]) == (404, 5)
    assert headers["x-ratelimit-limit"] == "600000"


async def test_callers_without_a_credential_share_the_limit_of_their_address(edge: Edge) -> None:
    edge.policy = Policy(anonymous_limit=Limit(4, 60.0))
    statuses: list[int] = []
    body: Any = None
    bad = (
        "",
        "Bearer x",
        "Bearer dev.uni.teacher.ann",
        "Basic dev.uni.student.ann",
        "Bearer dev.UNI.student.a",
    )
    for authorization in bad:
        headers = {"authorization": authorization} if authorization else {}
        status, answered, body = await edge.call("GET", f"{PARENT}/1", headers=headers)
        statuses.append(status)
        assert answered["x-ratelimit-limit"] == "4"
    assert statuses == [200, 200, 200, 200, 429]  # this gateway takes anybody
    assert body["details"][0]["metadata"]["level"] == "address"
    status, answered, _ = await edge.call(
        "GET", f"{PARENT}/1", headers={"authorization": "bEaReR  dev.uni.student.a "}
    )
    assert (status, answered["x-ratelimit-limit"]) == (200, "600000")
    edge.policy = Policy()


async def test_health_and_preflight_are_never_limited(edge: Edge) -> None:
    edge.policy = Policy(anonymous_limit=Limit(1, 86_400.0))
    for _ in range(5):
        headers = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        async with edge.http.options(edge.url + PARENT, headers=headers) as answer:
            assert answer.status == 200
        async with edge.http.get(f"{edge.url}/health") as answer:
            assert (answer.status, "x-ratelimit-limit" in answer.headers) == (
                501,
                False,
            )  # not this gateway's
    edge.policy = Policy()


async def test_a_changed_policy_holds_at_once(edge: Edge) -> None:
    user = new_user()
    for _ in range(100):
        await edge.call("POST", PARENT, user=user, json={"author": user})
    assert (await edge.call("POST", PARENT, user=user, json={"author": user}))[0] == 429
    tenant = Policy().default_tenant
    limits = {"CreateSubmission": Limit(200, 60.0)}
    edge.policy = Policy(tenants={"uni": type(tenant)(method_limits=limits)})
    status, headers, _ = await edge.call("POST", PARENT, user=user, json={"author": user})
    assert (status, told(headers)[:2]) == (200, ("200", "99"))
    edge.policy = Policy()


async def test_without_a_scheduler_calls_pass(tmp_path: Path) -> None:
    ports, clock = Ports(), ManualClock()
    listen = f"127.0.0.1:{ports.of('scheduler')}"
    admissions = Admissions(MemoryAdmission(clock), MemoryAdmission(clock), Policy, clock)
    async with AsyncExitStack() as exits:
        one = await exits.enter_async_context(gateway())
        envoy = Envoy(
            name="envoy",
            folder=tmp_path / "envoy",
            port=ports.of("envoy"),
            admin_port=ports.of("admin"),
            gateways=(Endpoint(host="127.0.0.1", port=one.port),),
            schedulers=(Endpoint.parse(listen),),
        )
        await exits.enter_async_context(serving(envoy.process(), logs=tmp_path / "logs"))
        http = await exits.enter_async_context(aiohttp.ClientSession(headers=credential("ann")))
        url = f"http://127.0.0.1:{envoy.port}{PARENT}/1"

        async def headers() -> Mapping[str, str]:
            async with http.get(url) as answer:
                assert answer.status == 200
                return answer.headers.copy()

        async def limited() -> bool:
            return "x-ratelimit-limit" in await headers()

        assert not await limited()
        async with limiter(listen, admissions):
            await until(limited, "the scheduler is asked")
            await envoy_sees_healthy(envoy.admin_url, "schedulers")
        assert not await limited()
