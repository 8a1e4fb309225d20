from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

class aio:
    class HealthServicer(health_pb2_grpc.HealthServicer):
        async def Check(
            self, request: health_pb2.HealthCheckRequest, context: Any
        ) -> health_pb2.HealthCheckResponse: ...
        async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus) -> None: ...
        async def enter_graceful_shutdown(self) -> None: ...
