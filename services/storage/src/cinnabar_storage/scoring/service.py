"""Grades in numbers, over gRPC."""

from __future__ import annotations

from cinnabar.storage.v1 import statistics_service_pb2 as pb
from cinnabar.storage.v1 import statistics_service_pb2_grpc
from cinnabar_storage import responses
from cinnabar_storage.checks import require
from cinnabar_storage.scoring.records import ScoreStatistics
from cinnabar_storage.scoring.statistics import Statistics
from cinnabar_storage.service import Context


class StatisticsReader(statistics_service_pb2_grpc.StatisticsReaderServiceServicer):
    """Reads sums."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    async def GetAssignmentScores(
        self, request: pb.GetAssignmentScoresRequest, context: Context
    ) -> pb.GetAssignmentScoresResponse:
        require(request, ("tenant", "course", "assignment"))
        scores, as_of, unreachable = await self._statistics.of(
            request.tenant, request.course, request.assignment
        )
        return pb.GetAssignmentScoresResponse(
            scores=map(_score, scores), as_of_time=responses.timestamp(as_of), unreachable=unreachable
        )


def _score(given: ScoreStatistics) -> pb.ScoreRecord:
    return pb.ScoreRecord(
        item_id=given.item_id,
        criterion=given.criterion,
        count=given.number,
        mean=given.mean,
        standard_deviation=given.standard_deviation,
        histogram=given.histogram,
    )
