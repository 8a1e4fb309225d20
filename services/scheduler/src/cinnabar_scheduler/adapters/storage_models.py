"""The storage service as the scheduler's ledger of model calls, and as the source of upgrades."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import grpc

from cinnabar.storage.v1 import model_budget_service_pb2, storage_service_pb2, upgrade_service_pb2
from cinnabar.storage.v1.model_budget_service_pb2_grpc import ModelBudgetServiceStub
from cinnabar.storage.v1.storage_service_pb2_grpc import StorageReaderServiceStub
from cinnabar.storage.v1.upgrade_service_pb2_grpc import UpgradeServiceStub
from cinnabar_common.errors import from_rpc_error
from cinnabar_scheduler.adapters.storage_client import queued_tasks
from cinnabar_scheduler.model_calls import Change, Place, Spent
from cinnabar_scheduler.ports import StoreUnavailable
from cinnabar_scheduler.tasks import Task

MAX_PLACES = 10_000


class StorageModels:
    """Implements model_calls.Ledger and Places, and upgrades.UpgradeStore. The channel stays the caller's."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_seconds: float) -> None:
        self._budgets = ModelBudgetServiceStub(channel)
        self._upgrades = UpgradeServiceStub(channel)
        self._reader = StorageReaderServiceStub(channel)
        self._timeout = timeout_seconds
        # A revision never changes, nor does what it is a revision of.
        self._places: OrderedDict[tuple[str, str], Place] = OrderedDict()

    async def spent(self, tenant: str) -> list[Spent]:
        """See Ledger."""
        request = model_budget_service_pb2.GetModelBudgetsRequest(tenant=tenant)
        try:
            response = await self._budgets.GetModelBudgets(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return [Spent(one.scope, one.period, one.tokens, one.cost_micros) for one in response.budgets]

    async def save(self, changes: Sequence[Change]) -> None:
        """See Ledger."""
        request = model_budget_service_pb2.SaveModelBudgetsRequest()
        for change in changes:
            spent = change.spent
            request.budgets.add(
                tenant=change.tenant,
                scope=spent.scope,
                period=spent.span,
                tokens=spent.tokens,
                cost_micros=spent.cost_micros,
            )
        try:
            await self._budgets.SaveModelBudgets(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")

    async def place(self, tenant: str, revision: str) -> Place | None:
        """See Places."""
        known = self._places.get((tenant, revision))
        if known is not None:
            self._places.move_to_end((tenant, revision))
            return known
        request = storage_service_pb2.GetRevisionsRequest(
            revisions=[storage_service_pb2.RevisionKey(tenant=tenant, revision_id=revision)]
        )
        try:
            response = await self._reader.GetRevisions(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        for record in response.revisions:
            found = Place(tenant, record.course, record.assignment)
            self._places[tenant, revision] = found
            while len(self._places) > MAX_PLACES:
                self._places.popitem(last=False)
            return found
        return None

    async def open_upgrades(self, limit: int) -> tuple[list[Task], bool]:
        """See UpgradeStore."""
        request = upgrade_service_pb2.OpenUpgradesRequest(limit=limit)
        try:
            response = await self._upgrades.OpenUpgrades(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable from from_rpc_error(error, "storage")
        return queued_tasks(response.tasks), response.more
