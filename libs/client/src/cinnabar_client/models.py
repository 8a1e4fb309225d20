"""Calls about language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceStub
from cinnabar_client.connection import Connection

if TYPE_CHECKING:  # the generated module has it for type checkers only
    from cinnabar.gateway.v1.operations_service_pb2_grpc import OperationsServiceAsyncStub


class ModelCalls:
    """The part of the client that these calls make up. Every method raises ApiError; operators only."""

    @property
    def _connection(self) -> Connection:
        raise RuntimeError("use the client inside of `async with`")

    @property
    def _operations(self) -> OperationsServiceAsyncStub:
        return OperationsServiceStub(self._connection.channel)

    async def model_providers(self) -> pb.ListModelProvidersResponse:
        """The providers that graders ask, with their breakers, and what the own tenant has spent on them."""
        request = pb.ListModelProvidersRequest()
        return await self._connection.unary(self._operations.ListModelProviders, request)
