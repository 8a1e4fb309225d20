"""A teacher's grades become examples of an assignment."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from cinnabar_client import InvalidInput, calibrate, graded_examples
from cinnabar_client.client import Client
from tests.support.client_cli import run
from tests.support.gateway_world import PARENT, TENANT, World, answers, world

INSTRUCTOR = f"dev.{TENANT}.instructor.prof"
SHORT_PARENT = PARENT.removeprefix("courses/").replace("/assignments/", "/")


@pytest_asyncio.fixture
async def gateway() -> AsyncGenerator[World]:
    async with world() as made:
        await made.assignment()
        yield made


async def handed_in(client: Client, count: int) -> list[str]:
    """Names of submissions, each with words of its own."""
    names: list[str] = []
    for index in range(count):
        given = [*answers()[:3], answers()[3]]
        given[3].text = f"The window is {index}."
        names.append((await client.submit(PARENT, given, author=f"s-{index}")).name)
    return names


async def test_what_was_overridden_or_accepted_becomes_examples(gateway: World) -> None:
    address = f"127.0.0.1:{gateway.gateway.port}"
    async with Client(address, token=INSTRUCTOR) as client:
        names = await handed_in(client, 12)
        for index, name in enumerate(names[:9]):
            await client.override_grade(name, "explain", index / 4, reason="by hand")
        gateway.grade(await client.get_submission(names[9]), "explain", 3)
        gateway.grade(await client.get_submission(names[10]), "explain", 2)
        found = await graded_examples(client, PARENT, "explain", accepted=[names[9]])
        assert sorted((one.answer, one.score) for one in found) == sorted(
            [(f"The window is {index}.", index / 4) for index in range(9)] + [("The window is 9.", 3.0)]
        )
        with pytest.raises(InvalidInput, match="free-text"):
            await graded_examples(client, PARENT, "pick")
        with pytest.raises(InvalidInput, match="free-text"):
            await calibrate(client, PARENT, "nothing", found)

        few = await run(
            address, "assignment", "calibrate", SHORT_PARENT, "--item", "explain", token=INSTRUCTOR
        )
        assert few.code == 2
        assert "9 answers" in few.err
        before = await client.get_assignment(PARENT)
        command = (
            *("assignment", "calibrate", SHORT_PARENT, "--item", "explain", "--accepted", names[9]),
            "--json",
        )
        asked = await run(address, *command, token=INSTRUCTOR)  # nobody there to say yes
        assert asked.code != 0
        assert "stay there when their authors are erased" in asked.err
        assert (await client.get_assignment(PARENT)).revision_id == before.revision_id

        done = await run(address, *command, "--yes", token=INSTRUCTOR)
        assert (done.code, done.err) == (0, "")
        after = await client.get_assignment(PARENT)
        assert after.revision_id != before.revision_id
        assert len(after.items[3].free_text.examples) == 10
        assert [item.item for item in after.items] == [item.item for item in before.items]
        assert after.items[3].free_text.references == before.items[3].free_text.references
