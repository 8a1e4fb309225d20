"""Another service's own word on its health (grpc.health.v1)."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cinnabar_common.errors import DependencyUnavailable


class GrpcHealthProbe:
    """Implements the port HealthProbe. The channel stays the caller's."""

    def __init__(
        self,
        name: str,
        channel: grpc.aio.Channel,
        *,
        service: str = "",
        optional: bool = False,
        timeout_seconds: float = 2.0,
    ) -> None:
        """``service`` is the name asked for; "" is the service as a whole.

        An ``optional`` one that the other service does not know is none it depends on, so nothing is wrong.
        """
        self._name = name
        self._optional = optional
        self._service = service
        self._timeout = timeout_seconds
        self._stub = health_pb2_grpc.HealthStub(channel)

    @property
    def name(self) -> str:
        """See HealthProbe."""
        return self._name

    async def check(self) -> None:
        """See HealthProbe."""
        request = health_pb2.HealthCheckRequest(service=self._service)
        try:
            response = await self._stub.Check(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            if self._optional and error.code() is grpc.StatusCode.NOT_FOUND:
                return
            raise DependencyUnavailable(self._name) from error
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable(self._name)
