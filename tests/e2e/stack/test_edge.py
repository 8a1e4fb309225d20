"""Envoy before real gRPC servers: gRPC, gRPC-Web and REST on one port, and errors that look alike."""

import io
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from cinnabar.gateway.v1 import submission_service_pb2 as pb
from cinnabar.gateway.v1 import submission_service_pb2_grpc as rpc
from cinnabar_local.group import serving
from cinnabar_local.ports import Ports
from cinnabar_local.servers import Endpoint, Envoy
from tests.e2e.stack.edge import Gateway, gateway
from tests.support.waiting import until

PARENT = "/v1/courses/c/assignments/a/submissions"
NAME = "courses/c/assignments/a/submissions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Envoy in front of two gateways."""

    url: str
    target: str
    gateways: tuple[Gateway, Gateway]
    http: aiohttp.ClientSession
    stub: "rpc.SubmissionServiceAsyncStub"
    channel: grpc.aio.Channel

    async def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and decoded JSON body."""
        async with self.http.request(method, self.url + path, **options) as answer:
            assert answer.content_type == "application/json"
            return answer.status, json.loads(await answer.text())


@pytest_asyncio.fixture(scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Edge]:
    folder, ports = tmp_path_factory.mktemp("edge"), Ports()
    async with AsyncExitStack() as exits:
        gateways = (await exits.enter_async_context(gateway()), await exits.enter_async_context(gateway()))
        envoy = Envoy(
            name="envoy",
            folder=folder / "envoy",
            port=ports.of("envoy"),
            admin_port=ports.of("admin"),
            gateways=tuple(Endpoint(host="127.0.0.1", port=each.port) for each in gateways),
        )
        await exits.enter_async_context(serving(envoy.process(), logs=folder / "logs"))
        target = f"127.0.0.1:{envoy.port}"
        http = await exits.enter_async_context(aiohttp.ClientSession())
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(target))
        yield Edge(
            url=f"http://{target}",
            target=target,
            gateways=gateways,
            http=http,
            stub=rpc.SubmissionServiceStub(channel),
            channel=channel,
        )


async def test_rest_and_grpc_reach_the_same_method(edge: Edge) -> None:
    status, body = await edge.request("GET", f"{PARENT}/1")
    answer = await edge.stub.GetSubmission(pb.GetSubmissionRequest(name=f"{NAME}/1"))
    assert (status, body["name"], answer.name) == (200, f"{NAME}/1", f"{NAME}/1")


async def test_headers_reach_the_gateway_and_the_answer_has_the_request_id(edge: Edge) -> None:
    headers = {"Idempotency-Key": "k1", "Authorization": "Bearer t", "x-request-id": "mine"}
    async with edge.http.get(f"{edge.url}{PARENT}/1", headers=headers) as answer:
        assert answer.headers["x-request-id"] == "mine"
    seen = [each.submissions.metadata for each in edge.gateways]
    mine = next(metadata for metadata in seen if "idempotency-key" in metadata)
    assert (mine["idempotency-key"], mine["authorization"], mine["x-request-id"]) == (
        "k1",
        "Bearer t",
        "mine",
    )


async def test_errors_of_the_gateway_keep_their_typed_details(edge: Edge) -> None:
    status, body = await edge.request("GET", f"{PARENT}/missing")
    assert (status, body["code"], body["message"]) == (404, 5, "no such submission: é中")
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert body["details"][0]["reason"] == "RESOURCE_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await edge.stub.GetSubmission(pb.GetSubmissionRequest(name="missing"))
    trailers = dict(error.value.trailing_metadata())
    info = error_details_pb2.ErrorInfo()
    packed = trailers["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    assert status_pb2.Status.FromString(packed).details[0].Unpack(info)
    assert info.reason == "RESOURCE_NOT_FOUND"


async def test_an_error_without_details_is_json_too(edge: Edge) -> None:
    assert await edge.request("GET", f"{PARENT}/plain") == (
        400,
        {"code": 9, "message": "closed", "details": []},
    )


async def test_watch_is_one_json_object_a_line(edge: Edge) -> None:
    async with edge.http.get(f"{edge.url}{PARENT}/1:watch") as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines() if line]
    assert [line["submission"]["state"] for line in lines] == ["QUEUED", "GRADED"]


async def test_grpc_web(edge: Edge) -> None:
    message = pb.GetSubmissionRequest(name="web").SerializeToString()
    async with edge.http.post(
        f"{edge.url}/cinnabar.gateway.v1.SubmissionService/GetSubmission",
        data=b"\x00" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto"},
    ) as answer:
        body = await answer.read()
    length = int.from_bytes(body[1:5], "big")
    assert pb.Submission.FromString(body[5 : 5 + length]).name == "web"
    assert b"grpc-status:0" in body[5 + length :]


async def test_a_browser_may_call_from_localhost_and_from_nowhere_else(edge: Edge) -> None:
    allowed: list[str | None] = []
    for origin in ("http://localhost:3000", "https://elsewhere.example"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with edge.http.options(edge.url + PARENT, headers=headers) as answer:
            allowed.append(answer.headers.get("access-control-allow-origin"))
    assert allowed == ["http://localhost:3000", None]


async def test_a_page_from_localhost_is_shown_answers_and_refusals_with_their_headers(edge: Edge) -> None:
    for method, path, status in (("GET", f"{PARENT}/1", 200), ("GET", "/v1/nowhere", 404)):
        for origin, allowed in (
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://elsewhere.example", None),
        ):
            async with edge.http.request(method, edge.url + path, headers={"Origin": origin}) as answer:
                assert answer.status == status
                assert answer.headers.get("access-control-allow-origin") == allowed
                exposed = answer.headers.get("access-control-expose-headers", "")
                assert ("cinnabar-consistency-token" in exposed) == (allowed is not None)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "reason", "field"),
    [
        ("GET", "/nowhere", None, 404, 5, "METHOD_UNKNOWN", None),
        ("DELETE", f"{PARENT}/1", None, 404, 5, "METHOD_UNKNOWN", None),
        ("POST", f"{PARENT}:nonsense", b"{}", 404, 5, "METHOD_UNKNOWN", None),
        ("GET", f"{PARENT}/1?colour=red", None, 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b'{"autor": "x"}', 400, 3, "INVALID_REQUEST", "submission.autor"),
        (
            "POST",
            PARENT,
            b'{"answers": [{"item": "a", "text": "{]\\"x"}, {"item": "b", "txt": "c"}]}',
            400,
            3,
            "INVALID_REQUEST",
            "submission.answers[1].txt",
        ),
        (
            "POST",
            f"{PARENT}:batchCreate",
            b'{"requests": [{"submission": {"answers": [{"number": {"value": 1, "unti": "kg"}}]}}]}',
            400,
            3,
            "INVALID_REQUEST",
            "requests[0].submission.answers[0].number.unti",
        ),
        ("POST", PARENT, b'{"author": "x"', 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b'{"author": "\xff\xfe"}', 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b'{"author": 5}', 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b"not json", 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b"[" * 200, 400, 3, "INVALID_REQUEST", "request"),
        ("POST", PARENT, b'{"author": "' + b"x" * 9_000_000 + b'"}', 413, 3, "INVALID_REQUEST", "body"),
        ("GET", "/" + "x" * 40_000, None, 431, 3, "INVALID_REQUEST", "headers"),
    ],
)
async def test_what_envoy_refuses_is_an_error_like_any_other(
    edge: Edge,
    method: str,
    path: str,
    body: bytes | None,
    status: int,
    code: int,
    reason: str,
    field: str | None,
) -> None:
    before = [len(each.submissions.received) for each in edge.gateways]
    answer_status, answer = await edge.request(
        method, path, data=io.BytesIO(body) if body else None, headers={"content-type": "application/json"}
    )
    assert (answer_status, answer["code"]) == (status, code)
    assert answer["message"]
    info, *others = answer["details"]
    assert (info["reason"], info["domain"]) == (reason, "cinnabar.dev")
    if field is not None:
        assert info["metadata"]["field"] == field
        assert others[0]["fieldViolations"][0]["field"] == field
    assert [len(each.submissions.received) for each in edge.gateways] == before


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'  { "author" : "x" , "answers" : [ ] }  ',
        b'{"answers": [{"item": "a", "number": {"value": -1.5e3, "unit": "k\\"g"}}], "author": null}',
        b'{"answers": [{"item": "a", "choice": {"options": ["x"]}}], "create_time": "2026-01-01T00:00:00Z"}',
        b'{"maxScore": 1, "answers": [{"item": "\xe4\xb8\xad", "text": "\\u4e2d {}"}]}',
    ],
)
async def test_good_bodies_pass(edge: Edge, body: bytes) -> None:
    status, _ = await edge.request("POST", PARENT, data=body, headers={"content-type": "application/json"})
    assert status == 200


async def test_grpc_clients_get_a_status_for_what_envoy_refuses(edge: Edge) -> None:
    unknown = edge.channel.unary_unary(
        "/no.such.Service/Call",
        request_serializer=pb.Submission.SerializeToString,
        response_deserializer=pb.Submission.FromString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await unknown(pb.Submission())
    assert (error.value.code(), error.value.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "no such path or method",
    )


async def test_reads_are_repeated_elsewhere_and_writes_are_not(edge: Edge) -> None:
    for each in edge.gateways:
        each.submissions.refusals = 0
    status, _ = await edge.request("GET", f"{PARENT}/flaky")
    assert status == 200
    for each in edge.gateways:
        each.submissions.refusals = 0
    status, body = await edge.request("POST", PARENT, json={"author": "flaky"})
    assert (status, body["code"]) == (503, 14)
    assert sum(each.submissions.refusals for each in edge.gateways) == 1


async def test_a_stream_goes_both_ways_message_by_message(edge: Edge) -> None:
    call = edge.stub.StreamCreateSubmissions()
    for number in (1, 2):
        await call.write(pb.StreamCreateSubmissionsRequest(batch_id=number))
        answer = await call.read()
        assert isinstance(answer, pb.StreamCreateSubmissionsResponse)
        assert answer.batch_id == number
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


async def test_a_gateway_that_says_it_does_not_serve_gets_no_calls(edge: Edge) -> None:
    drained, other = edge.gateways
    await drained.set_serving(False)

    async def left_out() -> bool:
        drained.submissions.metadata = other.submissions.metadata = {}
        for _ in range(6):
            await edge.stub.GetSubmission(pb.GetSubmissionRequest(name="x"))
        return not drained.submissions.metadata

    await until(left_out, description="only the other gateway is called")
    await drained.set_serving(True)

    async def back() -> bool:
        await edge.stub.GetSubmission(pb.GetSubmissionRequest(name="x"))
        return bool(drained.submissions.metadata)

    await until(back, description="it is called again")


async def test_without_a_gateway_the_error_says_when_to_come_back(tmp_path: Path) -> None:
    ports = Ports()
    async with AsyncExitStack() as exits:
        async with gateway() as one:
            envoy = Envoy(
                name="envoy",
                folder=tmp_path / "envoy",
                port=ports.of("envoy"),
                admin_port=ports.of("admin"),
                gateways=(Endpoint(host="127.0.0.1", port=one.port),),
            )
            await exits.enter_async_context(serving(envoy.process(), logs=tmp_path / "logs"))
        http = await exits.enter_async_context(aiohttp.ClientSession())
        async with http.get(f"http://127.0.0.1:{envoy.port}{PARENT}/1") as answer:
            body = json.loads(await answer.text())
        assert (answer.status, body["code"]) == (503, 14)
        info, retry = body["details"]
        assert (info["reason"], info["metadata"]) == ("DEPENDENCY_UNAVAILABLE", {"dependency": "gateway"})
        assert retry["retryDelay"] == "1s"
        channel = await exits.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{envoy.port}"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await rpc.SubmissionServiceStub(channel).GetSubmission(pb.GetSubmissionRequest(name="x"))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_deadline_in_the_request_is_kept(edge: Edge) -> None:
    status, body = await edge.request("GET", f"{PARENT}/slow", headers={"grpc-timeout": "200m"})
    assert (status, body["code"]) == (504, 4)
    # Envoy passes the same deadline on. About once in a hundred times gRPC at the gateway, which knows no
    # details, notices it first.
    assert [detail["reason"] for detail in body["details"]] in (["DEADLINE_PASSED"], [])
