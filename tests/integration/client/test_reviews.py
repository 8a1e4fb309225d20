"""What instructors and operators do about grades with the library and the command line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from cinnabar_client import ApiError
from cinnabar_client.client import Client
from cinnabar_gateway.consistency import Position, TokenKeys
from tests.support.client_cli import environment, run
from tests.support.gateway_world import KEYS, PARENT, TENANT, World, world

INSTRUCTOR = f"dev.{TENANT}.instructor.prof"
OPERATOR = f"dev.{TENANT}.operator.root"


@pytest_asyncio.fixture
async def gateway() -> AsyncGenerator[World]:
    async with world() as made:
        await made.assignment()
        yield made


async def test_an_instructor_overrides_with_the_library(gateway: World) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", 1)
    async with Client(f"127.0.0.1:{gateway.gateway.port}", token=INSTRUCTOR) as client:
        seen = await client.get_submission(created.name)
        after = await client.override_grade(
            created.name, "explain", 3, reason="why", feedback="Good.", etag=seen.etag
        )
        assert (after.results[3].overridden, after.results[3].grade.feedback) == (True, "Good.")
        with pytest.raises(ApiError) as caught:
            await client.override_grade(created.name, "explain", 2, reason="why", etag=seen.etag)
        assert caught.value.reason == "ETAG_MISMATCH"
        assert [one.generation async for one in client.gradings(created.name)] == [1, 2]
        assert [one.action async for one in client.audit_events(created.name)] == ["grade", "override"]


async def test_an_instructor_works_through_what_waits_with_the_library(gateway: World) -> None:
    created = await gateway.submission()
    for item in ("explain", "name"):
        gateway.grade(created, item, 1, doubts=("ODD", item.upper()))
    async with Client(f"127.0.0.1:{gateway.gateway.port}", token=INSTRUCTOR) as client:
        assert [one.item async for one in client.reviews()] == ["explain", "name"]
        assert [one.item async for one in client.reviews(PARENT, flag="NAME")] == ["name"]
        done = await client.accept_review(created.name, "name", comment="fair")
        assert (done.item, done.grade.score) == ("name", 1)
        with pytest.raises(ApiError) as caught:
            await client.accept_review(created.name, "name")
        assert caught.value.reason == "RESOURCE_NOT_FOUND"
        assert [one.item async for one in client.reviews()] == ["explain"]


def files_in(folder: Path) -> set[Path]:
    return set(folder.iterdir())


async def test_a_command_sees_what_the_one_before_it_wrote(gateway: World) -> None:
    created = await gateway.submission()
    address = f"127.0.0.1:{gateway.gateway.port}"
    home = Path(environment(address)["CINNABAR_HOME"])
    override = ("override", created.name, "explain", "2", "--reason", "why", "--json")
    before = files_in(home)
    assert (await run(address, *override, token=INSTRUCTOR)).code == 0
    [kept] = files_in(home) - before
    assert KEYS.decode(TENANT, [kept.read_text()])
    assert (await run(address, "show", created.name, "--json", token=INSTRUCTOR)).code == 0
    # The suite was set up anew, under another key: what is remembered is worth nothing there.
    kept.write_text(TokenKeys(("another secret of the tests: long",)).encode(TENANT, (Position(0, 1),)))
    shown = await run(address, "show", created.name, "--json", token=INSTRUCTOR)
    assert (shown.code, shown.err) == (0, "")
    assert kept not in files_in(home)


async def test_the_command_line_lists_and_accepts_what_waits(gateway: World) -> None:
    created = await gateway.submission()
    gateway.grade(created, "explain", 1.5, doubts=("OFF_TOPIC",))
    address = f"127.0.0.1:{gateway.gateway.port}"
    for target in ((), ("net",), ("net/a1",)):
        [line] = (await run(address, "reviews", "list", *target, "--json", token=INSTRUCTOR)).lines
        assert (line["submission"], line["item"], line["flags"]) == (created.name, "explain", ["OFF_TOPIC"])
    shown = await run(address, "reviews", "list", token=INSTRUCTOR)
    assert (shown.code, "1.5 of 4" in shown.out, "OFF_TOPIC" in shown.out) == (0, True, True)
    none = await run(address, "reviews", "list", "--flag", "COPY", "--json", token=INSTRUCTOR)
    assert (none.code, none.out) == (0, "")
    wrong = await run(address, "reviews", "list", "a/b/c", "--json", token=INSTRUCTOR)
    assert wrong.code == 2
    accept = ("reviews", "accept", created.name, "explain", "--comment", "fair")
    done = await run(address, *accept, token=INSTRUCTOR)
    assert (done.code, "accepted" in done.out) == (0, True)
    again = await run(address, *accept, "--json", token=INSTRUCTOR)
    assert (again.code, again.problem["reason"]) == (1, "RESOURCE_NOT_FOUND")


async def test_the_command_line_overrides_and_shows_what_happened(gateway: World) -> None:
    created = await gateway.submission()
    address = f"127.0.0.1:{gateway.gateway.port}"
    wanted = ("override", created.name, "explain", "3.5", "--reason", "second look", "--feedback", "Good.")
    done = await run(address, *wanted, "--json", token=INSTRUCTOR)
    assert (done.code, done.document["results"][3]["overridden"]) == (0, True)
    stale = await run(address, *wanted[:3], "2", *wanted[4:], "--etag", '"x"', "--json", token=INSTRUCTOR)
    assert (stale.code, stale.problem["reason"]) == (1, "ETAG_MISMATCH")
    shown = await run(address, "gradings", created.name, token=INSTRUCTOR)
    assert shown.code == 0
    for word in ("overridden", "3.5 of 4", "second look", "instructor/prof"):
        assert word in shown.out
    [event] = (await run(address, "audit", created.name, "--json", token=INSTRUCTOR)).lines
    assert (event["action"], event["detail"]) == ("override", "score none -> 3.5; second look")
    verdict = await run(address, "ops", "audit", "verify", token=OPERATOR)
    assert (verdict.code, "holds" in verdict.out, "1 not sealed yet" in verdict.out) == (0, True, True)
