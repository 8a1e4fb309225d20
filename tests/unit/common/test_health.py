"""Overall health, and that of dependencies."""

from typing import Any, cast

from grpc_health.v1 import health_pb2

from cinnabar_common.health import HealthBoard
from tests.support.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Dependency:
    """Away while ``problem`` is set."""

    def __init__(self) -> None:
        self.problem = False

    async def check(self) -> None:
        if self.problem:
            raise ConnectionError


async def status(board: HealthBoard, service: str = "") -> int:
    servicer = cast("Any", board.servicer)
    response = await servicer.Check(health_pb2.HealthCheckRequest(service=service), None)
    return response.status


async def test_a_dependency_that_is_away_leaves_the_process_in_service() -> None:
    redis = Dependency()
    redis.problem = True
    async with HealthBoard({"redis": redis.check}).running() as board:
        assert (await status(board), await status(board, "redis")) == (SERVING, NOT_SERVING)
    assert await status(board) == NOT_SERVING


async def test_the_overall_check_takes_it_out_and_brings_it_back() -> None:
    ears = Dependency()
    ears.problem = True
    board = HealthBoard({}, overall=ears.check, interval_seconds=0.01)
    async with board.running():
        assert await status(board) == NOT_SERVING
        for problem, expected in ((False, SERVING), (True, NOT_SERVING), (False, SERVING)):
            ears.problem = problem

            async def changed(expected: int = expected) -> bool:
                return await status(board) == expected

            await until(changed, "health follows")
    assert await status(board) == NOT_SERVING
