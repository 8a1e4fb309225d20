"""A client made from the text of KEDA's interface alone, as KEDA itself would be.

It lives in a process of its own: the names of its descriptors are those of the suite's copy.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PROTO = """
syntax = "proto3";
package externalscaler;
option go_package = ".;externalscaler";

service ExternalScaler {
    rpc IsActive(ScaledObjectRef) returns (IsActiveResponse) {}
    rpc StreamIsActive(ScaledObjectRef) returns (stream IsActiveResponse) {}
    rpc GetMetricSpec(ScaledObjectRef) returns (GetMetricSpecResponse) {}
    rpc GetMetrics(GetMetricsRequest) returns (GetMetricsResponse) {}
}
message ScaledObjectRef {
    string name = 1;
    string namespace = 2;
    map<string, string> scalerMetadata = 3;
}
message IsActiveResponse { bool result = 1; }
message GetMetricSpecResponse { repeated MetricSpec metricSpecs = 1; }
message MetricSpec {
    string metricName = 1;
    int64 targetSize = 2 [deprecated=true];
    double targetSizeFloat = 3;
}
message GetMetricsRequest {
    ScaledObjectRef scaledObjectRef = 1;
    string metricName = 2;
}
message GetMetricsResponse { repeated MetricValue metricValues = 1; }
message MetricValue {
    string metricName = 1;
    int64 metricValue = 2 [deprecated=true];
    double metricValueFloat = 3;
}
"""

PROGRAM = """
import asyncio, json, sys
import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
import externalscaler_pb2 as pb
from externalscaler_pb2_grpc import ExternalScalerStub

def say(number, kind, value=None):
    print(json.dumps([number, kind, value]), flush=True)

async def stream(call, number):
    try:
        async for response in call:
            say(number, "active", response.result)
        say(number, "end")
    except grpc.aio.AioRpcError as error:
        say(number, "error", [error.code().name, error.details()])

async def main(target):
    calls = {}
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(target) as channel:
        stub = ExternalScalerStub(channel)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            number, method, request = json.loads(line)
            if method == "leave":
                calls.pop(request)[0].cancel()
                continue
            kind = pb.GetMetricsRequest if method == "GetMetrics" else pb.ScaledObjectRef
            if method == "StreamIsActive":
                call = stub.StreamIsActive(ParseDict(request, kind()))
                calls[number] = call, asyncio.create_task(stream(call, number))
                continue
            try:
                response = await getattr(stub, method)(ParseDict(request, kind()), timeout=10)
                say(number, "response", MessageToDict(response, always_print_fields_with_no_presence=True))
            except grpc.aio.AioRpcError as error:
                say(number, "error", [error.code().name, error.details()])
        for call, task in calls.values():
            call.cancel()
            task.cancel()

asyncio.run(main(sys.argv[1]))
"""


class KedaError(Exception):
    """(Name of the code, details)."""


class KedaClient:
    """Speaks to a scheduler through the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._number = 0
        self._answers: dict[int, asyncio.Queue[tuple[str, Any]]] = {}

    async def call(self, method: str, metadata: Mapping[str, str], metric: str = "") -> dict[str, Any]:
        """One call; raises KedaError."""
        ref = {"name": "graders", "namespace": "cinnabar", "scalerMetadata": dict(metadata)}
        request = {"scaledObjectRef": ref, "metricName": metric} if method == "GetMetrics" else ref
        kind, value = await self.next(await self._send(method, request))
        if kind == "error":
            raise KedaError(*value)
        return value

    async def stream(self, metadata: Mapping[str, str]) -> int:
        """Opens StreamIsActive; its number."""
        return await self._send("StreamIsActive", {"name": "graders", "scalerMetadata": dict(metadata)})

    async def leave(self, number: int) -> None:
        """Cancels a stream."""
        await self._send("leave", number)

    async def next(self, number: int) -> tuple[str, Any]:
        """The next of a call: ("active", value), ("error", [code, details])…"""
        async with asyncio.timeout(10):
            return await self._answers[number].get()

    async def _send(self, method: str, request: object) -> int:
        self._number += 1
        self._answers[self._number] = asyncio.Queue()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([self._number, method, request]).encode() + b"\n")
        await self._process.stdin.drain()
        return self._number

    async def listen(self) -> None:
        """Sorts what the process says; until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            number, kind, value = json.loads(line)
            self._answers[number].put_nowait((kind, value))


@asynccontextmanager
async def keda_client(target: str, folder: Path) -> AsyncGenerator[KedaClient]:
    """Generates the client into ``folder`` and runs it against ``target``."""
    (folder / "externalscaler.proto").write_text(PROTO, "utf-8")
    (folder / "client.py").write_text(PROGRAM, "utf-8")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", *outputs, "externalscaler.proto"]
    generated = await asyncio.create_subprocess_exec(*command, cwd=folder)
    assert await generated.wait() == 0
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(folder / "client.py"), target, stdin=-1, stdout=-1, cwd=folder
    )
    client = KedaClient(process)
    listener = asyncio.create_task(client.listen(), name="keda-client")
    try:
        yield client
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(10):
            await process.wait()
            await listener
