"""Schedulers whose clocks are wrong agree on the server's time."""

import time
from dataclasses import dataclass

import pytest

from cinnabar_common.clock import SystemClock
from cinnabar_common.redis_connection import connect
from cinnabar_scheduler.adapters.memory import MemoryPolicy
from cinnabar_scheduler.adapters.redis_clock import RedisClock
from cinnabar_scheduler.adapters.redis_queue import RedisQueue
from cinnabar_scheduler.tasks import HeadStart
from tests.support.scheduler_process import Suite
from tests.support.scheduler_queue import FREE, QUEUE, task
from tests.support.scheduler_worker import worker


@dataclass(frozen=True, slots=True)
class SkewedClock:
    """A clock that is wrong by so many seconds."""

    seconds: float

    def time(self) -> float:
        return time.time() + self.seconds

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("skew", [-600.0, 600.0])
async def test_a_scheduler_with_a_wrong_clock_expires_nobodys_leases(valkey_url: str, skew: float) -> None:
    redis = connect(valkey_url, timeout_seconds=5)
    right, wrong = RedisClock(redis, SystemClock()), RedisClock(redis, SkewedClock(skew))
    await right.sync()
    assert abs(wrong.time() - right.time()) > 500
    await wrong.sync()
    assert abs(wrong.time() - right.time()) < 1
    assert abs(right.time() - time.time()) < 1
    one, other = (
        RedisQueue(redis, clock=clock, lease_seconds=30, policies=MemoryPolicy()) for clock in (right, wrong)
    )
    now_ms = int(time.time() * 1000)
    await one.enqueue([task(head_start=HeadStart.HIGH, ready_ms=now_ms)])
    (lease,) = (await one.lease(QUEUE, 1, free=FREE)).leases
    assert await other.expired(QUEUE, 10) == []
    assert await other.extend(QUEUE, [(lease.task, lease.token)]) == []
    assert await one.expired(QUEUE, 10) == []
    await redis.aclose()


async def test_homework_dated_ahead_is_not_delayed_by_a_rebuild(parts: Suite) -> None:
    """The time at which a submission was created is a gateway's, and its clock may be wrong."""
    for dated in parts.storage.add_tasks(3, revision=parts.storage.add_revision()):
        dated.create_time.seconds += 600
    scheduler = await parts.scheduler()
    async with worker(scheduler.target) as one:
        await one.hello()
        assert len(await one.take(3)) == 3
