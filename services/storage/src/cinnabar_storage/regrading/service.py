"""Regrades over gRPC."""

from __future__ import annotations

from typing import Any

import grpc

from cinnabar.storage.v1 import regrade_service_pb2 as pb
from cinnabar.storage.v1 import regrade_service_pb2_grpc
from cinnabar_storage import responses
from cinnabar_storage.regrading import convert
from cinnabar_storage.regrading.campaigns import Regrades

Context = grpc.aio.ServicerContext[Any, Any]


class StorageRegradeWriter(regrade_service_pb2_grpc.StorageRegradeWriterServiceServicer):
    """Everything that changes regrades."""

    def __init__(self, regrades: Regrades) -> None:
        self._regrades = regrades

    async def CreateRegrade(
        self, request: pb.CreateRegradeRequest, context: Context
    ) -> pb.CreateRegradeResponse:
        view, position = await self._regrades.create(convert.new_regrade(request))
        return pb.CreateRegradeResponse(regrade=convert.view(view), position=responses.position(position))

    async def AdvanceRegrade(
        self, request: pb.AdvanceRegradeRequest, context: Context
    ) -> pb.AdvanceRegradeResponse:
        return convert.advanced(await self._regrades.advance(*convert.advance(request)))

    async def ClaimRegrades(
        self, request: pb.ClaimRegradesRequest, context: Context
    ) -> pb.ClaimRegradesResponse:
        claimed = await self._regrades.claim(convert.claims(request))
        keys = [pb.ClaimRegradesResponse.Key(tenant=one.tenant, regrade_id=one.regrade_id) for one in claimed]
        return pb.ClaimRegradesResponse(regrades=keys)

    async def DecideRegrade(
        self, request: pb.DecideRegradeRequest, context: Context
    ) -> pb.DecideRegradeResponse:
        view, position = await self._regrades.decide(
            convert.key(request), convert.parent(request), *convert.decision(request)
        )
        return pb.DecideRegradeResponse(regrade=convert.view(view), position=responses.position(position))

    async def RegradeSubmission(
        self, request: pb.RegradeSubmissionRequest, context: Context
    ) -> pb.RegradeSubmissionResponse:
        opened, position = await self._regrades.reopen(convert.reopening(request))
        return pb.RegradeSubmissionResponse(
            opened=map(responses.open_task, opened), position=responses.position(position)
        )


class StorageRegradeReader(regrade_service_pb2_grpc.StorageRegradeReaderServiceServicer):
    """Everything that reads regrades."""

    def __init__(self, regrades: Regrades) -> None:
        self._regrades = regrades

    async def GetRegrade(self, request: pb.GetRegradeRequest, context: Context) -> pb.GetRegradeResponse:
        view = await self._regrades.get(convert.key(request), convert.parent(request))
        return pb.GetRegradeResponse(regrade=convert.view(view))

    async def ListRegrades(
        self, request: pb.ListRegradesRequest, context: Context
    ) -> pb.ListRegradesResponse:
        views = await self._regrades.list(convert.query(request))
        return pb.ListRegradesResponse(regrades=map(convert.view, views))

    async def GetRegradeReport(
        self, request: pb.GetRegradeReportRequest, context: Context
    ) -> pb.GetRegradeReportResponse:
        return convert.report(
            await self._regrades.report(
                convert.key(request), convert.parent(request), convert.pass_share(request)
            )
        )
