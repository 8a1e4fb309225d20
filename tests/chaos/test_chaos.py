"""Everything is killed in turn while submissions flow; nothing accepted is lost or graded twice.

``CHAOS_SECONDS`` makes it longer than one round, ``CHAOS_SEED`` repeats the order of the faults.
"""

import os
import random
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio

from cinnabar_local.stack import Stack, StackConfig, running
from tests.support.chaos_traffic import ITEMS, Traffic, account, flowing
from tests.support.waiting import until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))
SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
KILLED = ("scheduler-0", "grader-0", "storage-0", "gateway-0")
FLUSH = "flush valkey"
BETWEEN_FAULTS = 60  # submissions accepted
SETTLE_SECONDS = 60.0

pytestmark = pytest.mark.timeout(240 + 3 * SECONDS)


@pytest_asyncio.fixture(scope="module")
async def stack(server_folder: Path) -> AsyncGenerator[Stack]:
    config = StackConfig(
        data_dir=server_folder / "chaos",
        objects=False,
        env={
            "scheduler": {"SCHEDULER_LEASE_SECONDS": "5", "SCHEDULER_SWEEP_SECONDS": "2"},
            "grader": {"GRADER_QUEUES": "choice,text"},
        },
    )
    async with running(config) as started:
        yield started


async def test_every_accepted_submission_is_graded_exactly_once(stack: Stack) -> None:
    generator = random.Random(SEED)
    faults: list[str] = []
    async with flowing(stack) as traffic:
        ends = time.monotonic() + SECONDS
        while not faults or time.monotonic() < ends:
            for fault in generator.sample((*KILLED, FLUSH), len(KILLED) + 1):
                await _more_accepted(traffic)
                await _inject(stack, fault)
                faults.append(fault)
        await _more_accepted(traffic)

    async def settled() -> bool:
        return (await account(stack)).open_tasks == 0

    await until(settled, description="no task open", seconds=SETTLE_SECONDS)
    final = await account(stack)
    print(
        f"seed {SEED}: {len(faults)} faults, {len(traffic.accepted)} submissions, "
        f"{sum(final.grades.values())} grades, statuses {dict(traffic.statuses)}, "
        f"longest stall {traffic.longest_stall:.1f} s"
    )
    assert traffic.forbidden == []
    assert final.graded_more_than_once == []
    assert final.given_up == 0
    # Every OK answer is in Postgres, and nothing is there that nobody was told of.
    assert final.submissions == traffic.accepted
    assert set(final.grades) == {f"{name}/{item.item}" for name in traffic.accepted for item in ITEMS}


async def _more_accepted(traffic: Traffic) -> None:
    before = len(traffic.accepted)
    await until(
        lambda: len(traffic.accepted) >= before + BETWEEN_FAULTS,
        description=f"{BETWEEN_FAULTS} more submissions accepted",
        seconds=SETTLE_SECONDS,
    )


async def _inject(stack: Stack, fault: str) -> None:
    if fault == FLUSH:
        client = redis.asyncio.from_url(stack.addresses.redis_url)  # pyright: ignore[reportUnknownMemberType]
        await client.flushall()  # pyright: ignore[reportUnknownMemberType]
        await client.aclose()
    else:
        await stack.kill(fault)
        await stack.restart(fault)
