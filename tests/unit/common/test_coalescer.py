"""Single requests become batches."""

import asyncio

import pytest

from cinnabar_common.coalescer import Coalescer
from cinnabar_common.errors import DependencyUnavailable, Overloaded, ResourceNotFound, SuiteError


class Flushes:
    """A flush that waits for ``go`` and doubles its items."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.error: Exception | None = None
        self.drop = 0

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [item * 2 for item in items[self.drop :]]


async def test_what_arrives_while_a_batch_is_in_flight_makes_the_next() -> None:
    flush = Flushes()
    async with Coalescer(flush, name="q").running() as coalescer, asyncio.TaskGroup() as group:
        first = group.create_task(coalescer.submit(1))
        await flush.begun.wait()
        rest = [group.create_task(coalescer.submit(n)) for n in range(2, 6)]
        many = group.create_task(coalescer.submit_many([6, 7]))
        await asyncio.sleep(0)
        flush.go.set()
    assert first.result() == 2
    assert [task.result() for task in rest] == [4, 6, 8, 10]
    assert many.result() == [12, 14]
    assert flush.batches == [[1], [2, 3, 4, 5, 6, 7]]


async def test_batches_are_bounded_but_a_caller_is_never_split() -> None:
    flush = Flushes()
    flush.go.set()
    async with Coalescer(flush, name="q", max_batch=3).running() as coalescer, asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(coalescer.submit_many([1, 1]))
        big = group.create_task(coalescer.submit_many(list(range(10))))
    assert [len(batch) for batch in flush.batches] == [2, 2, 2, 10]
    assert big.result() == [n * 2 for n in range(10)]


async def test_nothing_is_nothing() -> None:
    assert await Coalescer(Flushes(), name="q").submit_many([]) == []


async def test_an_error_goes_to_all_callers_and_the_lane_lives_on() -> None:
    flush = Flushes()
    flush.go.set()
    async with Coalescer(flush, name="q").running() as coalescer:
        for error, seen in (
            (ResourceNotFound("a"), ResourceNotFound),
            (RuntimeError("secret"), SuiteError),
        ):
            flush.error = error
            answers = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
            assert [type(answer) for answer in answers] == [seen, seen]
            assert "secret" not in str(answers[0])
        flush.error = None
        assert await coalescer.submit(3) == 6


async def test_a_flush_that_loses_results_is_an_error() -> None:
    flush = Flushes()
    flush.go.set()
    flush.drop = 1
    async with Coalescer(flush, name="q").running() as coalescer:
        with pytest.raises(SuiteError):
            await coalescer.submit_many([1, 2])


async def test_what_waits_is_bounded() -> None:
    flush = Flushes()
    async with Coalescer(flush, name="q", max_pending=3).running() as coalescer, asyncio.TaskGroup() as group:
        group.create_task(coalescer.submit(0))
        await flush.begun.wait()
        group.create_task(coalescer.submit_many([1, 2]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await coalescer.submit_many([3, 4])
        group.create_task(coalescer.submit(5))
        await asyncio.sleep(0)
        flush.go.set()
    assert flush.batches == [[0], [1, 2, 5]]


async def test_a_caller_that_went_away_costs_no_work() -> None:
    flush = Flushes()
    async with Coalescer(flush, name="q").running() as coalescer, asyncio.TaskGroup() as group:
        in_flight = group.create_task(coalescer.submit(1))
        await flush.begun.wait()
        gone = group.create_task(coalescer.submit(2))
        kept = group.create_task(coalescer.submit(3))
        await asyncio.sleep(0)
        gone.cancel()
        in_flight.cancel()
        await asyncio.sleep(0)
        flush.go.set()
    assert kept.result() == 6
    assert flush.batches == [[1], [3]]


async def test_the_end_fails_what_waits_and_what_comes_later() -> None:
    flush = Flushes()
    coalescer = Coalescer(flush, name="q")
    async with coalescer.running():
        in_flight = asyncio.ensure_future(coalescer.submit(1))
        await flush.begun.wait()
        waiting = asyncio.ensure_future(coalescer.submit(2))
        await asyncio.sleep(0)
    answers = await asyncio.gather(in_flight, waiting, coalescer.submit(3), return_exceptions=True)
    assert [type(answer) for answer in answers] == [DependencyUnavailable] * 3


async def test_lanes_work_at_the_same_time() -> None:
    flush = Flushes()
    async with (
        Coalescer(flush, name="q", max_batch=1, lanes=2).running() as coalescer,
        asyncio.TaskGroup() as group,
    ):
        for n in range(3):
            group.create_task(coalescer.submit(n))
        await flush.begun.wait()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert flush.batches == [[0], [1]]
        flush.go.set()
    assert len(flush.batches) == 3
