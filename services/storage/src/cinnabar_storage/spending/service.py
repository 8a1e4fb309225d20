"""Budgets of language models and upgrades, over gRPC."""

from __future__ import annotations

from cinnabar.storage.v1 import (
    model_budget_service_pb2,
    model_budget_service_pb2_grpc,
    upgrade_service_pb2,
    upgrade_service_pb2_grpc,
)
from cinnabar_common.errors import FieldViolation, InvalidRequest
from cinnabar_storage import responses
from cinnabar_storage.service import Context
from cinnabar_storage.spending.budgets import ModelBudgets, Upgrades
from cinnabar_storage.spending.ports import ModelBudget

MAX_BUDGETS = 10_000
MAX_UPGRADES = 1_000


class ModelBudgetService(model_budget_service_pb2_grpc.ModelBudgetServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(self, budgets: ModelBudgets) -> None:
        self._budgets = budgets

    async def SaveModelBudgets(
        self, request: model_budget_service_pb2.SaveModelBudgetsRequest, context: Context
    ) -> model_budget_service_pb2.SaveModelBudgetsResponse:
        if len(request.budgets) > MAX_BUDGETS:
            raise InvalidRequest([FieldViolation("budgets", f"must be at most {MAX_BUDGETS}")])
        violations = [
            FieldViolation(f"budgets[{index}].{field}", rule)
            for index, one in enumerate(request.budgets)
            for field, rule, wrong in (
                ("tenant", "is required", not one.tenant),
                ("period", "is required", not one.period),
                ("tokens", "must not be negative", one.tokens < 0),
                ("cost_micros", "must not be negative", one.cost_micros < 0),
            )
            if wrong
        ]
        if violations:
            raise InvalidRequest(violations)
        await self._budgets.save(
            [
                ModelBudget(one.tenant, one.scope, one.period, one.tokens, one.cost_micros)
                for one in request.budgets
            ]
        )
        return model_budget_service_pb2.SaveModelBudgetsResponse()

    async def GetModelBudgets(
        self, request: model_budget_service_pb2.GetModelBudgetsRequest, context: Context
    ) -> model_budget_service_pb2.GetModelBudgetsResponse:
        if not request.tenant:
            raise InvalidRequest([FieldViolation("tenant", "is required")])
        found = await self._budgets.of(request.tenant)
        return model_budget_service_pb2.GetModelBudgetsResponse(
            budgets=[model_budget_service_pb2.ModelBudgetRecord(**one._asdict()) for one in found]
        )


class UpgradeService(upgrade_service_pb2_grpc.UpgradeServiceServicer):
    """Convert, one domain call, convert."""

    def __init__(self, upgrades: Upgrades) -> None:
        self._upgrades = upgrades

    async def OpenUpgrades(
        self, request: upgrade_service_pb2.OpenUpgradesRequest, context: Context
    ) -> upgrade_service_pb2.OpenUpgradesResponse:
        if not 1 <= request.limit <= MAX_UPGRADES:
            raise InvalidRequest([FieldViolation("limit", f"must be from 1 to {MAX_UPGRADES}")])
        tasks, positions, more = await self._upgrades.open(request.limit)
        return upgrade_service_pb2.OpenUpgradesResponse(
            tasks=map(responses.open_task, tasks), positions=map(responses.position, positions), more=more
        )
