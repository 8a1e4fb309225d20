"""Everything is broken in turn while submissions flow; nothing accepted is lost or graded twice.

``CHAOS_SECONDS`` makes it a campaign of that length, ``CHAOS_SEED`` repeats its schedule. Without them each
fault of a short deck comes once. docs/chaos.md says what is injected and what is checked.
"""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from cinnabar_local.stack import Stack, StackConfig, running
from tests.support import skewed_clock
from tests.support.chaos_campaign import campaign
from tests.support.chaos_faults import REBUILD_LINKS, Faults
from tests.support.chaos_homework import ITEMS, MARKER, Load
from tests.support.chaos_oracle import longest_stall, problems
from tests.support.chaos_schedule import LINKS, LONG, SHORT, SKEWED_GRADER, schedule
from tests.support.tcp_proxy import Proxies, proxies

SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))
SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
SHAPE = LONG if SECONDS else SHORT
LOAD = Load() if SECONDS else Load(tenants=2, students=1)
STEPS = schedule(SEED, SECONDS, SHAPE)
# Beyond the outage itself.
RECOVERY_SECONDS = 30.0
MOST_MEMORY_MEBIBYTES = 400
# Clients come as fast as they like: it is the suite that is tested, not its limits.
POLICY = """
[tenants.default]
limits.tenant = { units = 0, seconds = 60 }
limits.user = { units = 0, seconds = 60 }
limits.method.CreateSubmission = { units = 0, seconds = 60 }
limits.method.SubmitGrading = { units = 0, seconds = 60 }
"""
# The suite waits for as long in production; the short form may not take as long.
QUICK = {} if SECONDS else {"SCHEDULER_LEASE_SECONDS": "3", "SCHEDULER_SWEEP_SECONDS": "2"}

pytestmark = pytest.mark.timeout(300 + 4 * SECONDS)


@pytest_asyncio.fixture(scope="module")
async def links() -> AsyncGenerator[Proxies]:
    """What stands between the processes whose connections are broken."""
    async with proxies(*LINKS, *REBUILD_LINKS) as between:
        yield between


@pytest.fixture(scope="module")
def clock(server_folder: Path) -> Path:
    """The file that says how wrong the clock of one grader is."""
    return server_folder / "clock-offset"


@pytest_asyncio.fixture(scope="module")
async def stack(server_folder: Path, links: Proxies, clock: Path) -> AsyncGenerator[Stack]:
    """Two of every service but storage, and nobody who starts again what dies."""
    config = StackConfig(
        data_dir=server_folder / "chaos",
        schedulers=2,
        objects=False,
        policy=POLICY,
        detour=links.detour,
        launchers={SKEWED_GRADER: (str(Path(skewed_clock.__file__)), str(clock))},
        env={
            "scheduler": QUICK,
            # As the compose file has it, for gateways that are replaced while calls come in.
            "gateway": {"GATEWAY_DRAIN_SECONDS": "2.5"},
            "grader": {"GRADER_QUEUES": "choice,text"},
        },
    )
    async with running(config) as started:
        yield started


async def test_every_accepted_submission_is_graded_exactly_once(
    stack: Stack, links: Proxies, clock: Path
) -> None:
    report = await campaign(
        stack,
        Faults(stack, links, clock),
        STEPS,
        seed=SEED,
        load=LOAD,
        marker=MARKER,
    )
    print(*report.lines(), sep="\n")
    assert report.ledger.forbidden == []
    assert report.watch.deaths == []
    assert problems(report.ledger, report.found, items=[item.item for item in ITEMS]) == []
    assert report.leftovers == []
    assert report.logs.bad == []
    assert report.longest_recovery <= RECOVERY_SECONDS
    outage = max(step.hold for step in STEPS)
    assert longest_stall(report.found) <= outage + RECOVERY_SECONDS
    assert max(report.watch.most.values()) <= MOST_MEMORY_MEBIBYTES * 1024 * 1024
