"""The public RegradeService."""

from __future__ import annotations

from cinnabar.gateway.v1 import regrade_service_pb2 as pb
from cinnabar.gateway.v1.regrade_service_pb2_grpc import RegradeServiceServicer
from cinnabar_common import pagination
from cinnabar_gateway import identity
from cinnabar_gateway import regrade_convert as convert
from cinnabar_gateway.calls import Context, min_positions, send_positions
from cinnabar_gateway.convert import assignment_name
from cinnabar_gateway.identity import Identity, Role
from cinnabar_gateway.regrade_ports import Decision
from cinnabar_gateway.regrades import Regrades


class RegradeService(RegradeServiceServicer):
    """Speaks gRPC; knows nothing of storage."""

    def __init__(self, regrades: Regrades) -> None:
        self._regrades = regrades

    async def CreateRegrade(self, request: pb.CreateRegradeRequest, context: Context) -> pb.Regrade:
        caller = _instructor("regrades.create")
        convert.check_create(request)
        regrade = request.regrade
        stored, position = await self._regrades.create(
            caller,
            assignment_name(request.parent, "parent"),
            convert.wanted(regrade.filter),
            revision_id=regrade.revision_id,
            shadow=regrade.shadow,
            reason=regrade.reason,
            min_positions=min_positions(context),
        )
        await send_positions(context, (position,))
        return convert.regrade(stored)

    async def GetRegrade(self, request: pb.GetRegradeRequest, context: Context) -> pb.Regrade:
        caller = _instructor("regrades.get")
        return convert.regrade(await self._regrades.get(caller, convert.name(request.name)))

    async def ListRegrades(
        self, request: pb.ListRegradesRequest, context: Context
    ) -> pb.ListRegradesResponse:
        caller = _instructor("regrades.list")
        parent = assignment_name(request.parent, "parent")
        limit = pagination.page_size(request.page_size)
        parameters = ("regrades", caller.tenant, request.parent)
        before = pagination.decode_token(request.page_token, *parameters)
        page = await self._regrades.list(
            caller, parent, before=before, limit=limit, min_positions=min_positions(context)
        )
        last = page[-1].name.regrade if len(page) == limit else ""
        return pb.ListRegradesResponse(
            regrades=map(convert.regrade, page),
            next_page_token=pagination.encode_token(last, *parameters) if last else "",
        )

    async def GetRegradeReport(
        self, request: pb.GetRegradeReportRequest, context: Context
    ) -> pb.RegradeReport:
        caller = _instructor("regrades.report")
        name, share = convert.name(request.name), convert.pass_share(request.pass_share)
        return convert.report(name, await self._regrades.report(caller, name, share))

    async def PromoteRegrade(self, request: pb.PromoteRegradeRequest, context: Context) -> pb.Regrade:
        return await self._decide("regrades.promote", request.name, Decision.PROMOTE, context)

    async def DiscardRegrade(self, request: pb.DiscardRegradeRequest, context: Context) -> pb.Regrade:
        return await self._decide("regrades.discard", request.name, Decision.DISCARD, context)

    async def _decide(self, action: str, name: str, decision: Decision, context: Context) -> pb.Regrade:
        caller = _instructor(action)
        decided, position = await self._regrades.decide(caller, convert.name(name), decision)
        await send_positions(context, (position,))
        return convert.regrade(decided)


def _instructor(action: str) -> Identity:
    caller = identity.current()
    caller.require(action, Role.INSTRUCTOR)
    return caller
