"""Programs that mean harm: each is held, ends as it should, and harms neither the grader nor a neighbour.

All run several at once, in one campaign for each way in which the sandbox is used; each test looks at one
program of one campaign.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import hostile_files, hostile_kernel, hostile_resources
from tests.support.hostile_campaign import PROGRAMS

ROOT = Path(__file__).parents[3]
_AS_NOBODY = ("-m", "tests.support.ordinary_user")
CAMPAIGNS = {
    "bubblewrap": ((), "bubblewrap"),
    "bubblewrap-of-an-ordinary-user": (_AS_NOBODY, "bubblewrap"),
    "landlock": ((), "landlock"),
}
_SAMPLE_OF_CALLS = 12
"""Calls of the kernel for the second and third campaign: the filter is the same in all."""
_EVERY = sorted(PROGRAMS)
_SAMPLE = [
    *(name for number, name in enumerate(hostile_kernel.PROGRAMS) if number % _SAMPLE_OF_CALLS == 0),
    *(name for name, program in hostile_resources.PROGRAMS.items() if not program.needs),
    *hostile_files.PROGRAMS,
]
CASES = [
    (campaign, name)
    for campaign in CAMPAIGNS
    for name in (_EVERY if campaign == "bubblewrap" else sorted(_SAMPLE))
]
pytestmark = pytest.mark.timeout(300)


async def _campaign(name: str) -> dict[str, Any]:
    prefix, mechanism = CAMPAIGNS[name]
    chosen = () if name == "bubblewrap" else _SAMPLE
    command = (*prefix, "-m", "tests.support.hostile_campaign", mechanism, *chosen)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(said)


@pytest.fixture(scope="module")
async def campaigns() -> dict[str, dict[str, Any]]:
    """The report of each."""
    async with asyncio.timeout(280), asyncio.TaskGroup() as group:
        running = {name: group.create_task(_campaign(name)) for name in CAMPAIGNS}
    return {name: task.result() for name, task in running.items()}


@pytest.mark.parametrize(("campaign", "name"), CASES, ids=["-".join(case) for case in CASES])
def test_a_hostile_program_is_held(campaigns: dict[str, dict[str, Any]], campaign: str, name: str) -> None:
    report = campaigns[campaign]
    if name in report["without_tools"]:
        tool = PROGRAMS[name].needs
        assert "CI" not in os.environ, f"{tool} must be there in CI"
        pytest.skip(f"{tool} is not on this machine")
    assert report["complaints"][name] == []


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_the_neighbour_is_unharmed(campaigns: dict[str, dict[str, Any]], campaign: str) -> None:
    assert campaigns[campaign]["neighbour_runs"] >= 10
    assert campaigns[campaign]["neighbour_complaints"] == []


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_nothing_is_left(campaigns: dict[str, dict[str, Any]], campaign: str) -> None:
    assert campaigns[campaign]["left"] == []


@pytest.mark.parametrize("campaign", CAMPAIGNS)
def test_it_was_the_sandbox_that_was_meant(campaigns: dict[str, dict[str, Any]], campaign: str) -> None:
    report = campaigns[campaign]
    assert report["mechanism"] == CAMPAIGNS[campaign][1]
    assert report["strong"]
    assert len(report["complaints"]) >= 60
