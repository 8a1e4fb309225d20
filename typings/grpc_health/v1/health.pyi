from grpc_health.v1 import health_pb2, health_pb2_grpc

class _AioHealthServicer(health_pb2_grpc.HealthServicer):
    async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus) -> None: ...
    async def enter_graceful_shutdown(self) -> None: ...

class _Aio:
    HealthServicer: type[_AioHealthServicer]

aio: _Aio
