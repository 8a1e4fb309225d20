"""Language models as they travel to operators."""

from __future__ import annotations

from collections.abc import Sequence

from cinnabar.gateway.v1 import operations_service_pb2 as pb
from cinnabar_gateway.models import ModelBudget, ModelProvider


def models(
    providers: Sequence[ModelProvider], budgets: Sequence[ModelBudget]
) -> pb.ListModelProvidersResponse:
    """Providers, and the budgets of one tenant."""
    response = pb.ListModelProvidersResponse()
    for one in providers:
        provider = response.providers.add(
            provider=one.provider,
            breaker=pb.ModelProvider.Breaker.Value(one.breaker.name),
            failures=one.failures,
            calls=one.calls,
        )
        if one.retry_us is not None:
            provider.retry_time.FromMicroseconds(one.retry_us)
    for given in budgets:
        budget = response.budgets.add(
            scope=given.scope,
            token_limit=given.token_limit,
            tokens_used=given.tokens_used,
            cost_limit_micros=given.cost_limit_micros,
            cost_used_micros=given.cost_used_micros,
        )
        if given.reset_us is not None:
            budget.reset_time.FromMicroseconds(given.reset_us)
    return response
