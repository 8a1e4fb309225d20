"""The scheduler service, as what knows of language models."""

from __future__ import annotations

import grpc

from cinnabar.scheduler.v1 import model_call_service_pb2 as pb
from cinnabar.scheduler.v1.model_call_service_pb2_grpc import ModelCallServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_gateway import deadlines
from cinnabar_gateway.models import Breaker, ModelBudget, ModelProvider

_BREAKERS = {pb.BreakerState.Value(breaker.name): breaker for breaker in Breaker}


class ModelClient:
    """Implements the port ModelStates. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float = 5.0) -> None:
        """No call takes longer than ``timeout_seconds``, nor than the caller's deadline."""
        self._stub = ModelCallServiceStub(channel)
        self._timeout = timeout_seconds

    async def providers(self) -> list[ModelProvider]:
        """See ModelStates."""
        try:
            response = await self._stub.ListProviders(
                pb.ListProvidersRequest(), timeout=deadlines.within(self._timeout)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scheduler") from error
        return [
            ModelProvider(
                one.provider,
                _BREAKERS[one.breaker],
                one.failures,
                one.retry_time.ToMicroseconds() if one.HasField("retry_time") else None,
                one.calls,
            )
            for one in response.providers
        ]

    async def budgets(self, tenant: str) -> list[ModelBudget]:
        """See ModelStates."""
        try:
            response = await self._stub.ListBudgets(
                pb.ListBudgetsRequest(tenant=tenant), timeout=deadlines.within(self._timeout)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "scheduler") from error
        return [
            ModelBudget(
                one.scope,
                one.token_limit,
                one.tokens_spent + one.tokens_reserved,
                one.cost_limit_micros,
                one.cost_spent_micros + one.cost_reserved_micros,
                one.reset_time.ToMicroseconds() if one.HasField("reset_time") else None,
            )
            for one in response.budgets
        ]
