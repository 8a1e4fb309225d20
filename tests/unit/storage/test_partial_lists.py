"""Lists over shards of which some cannot be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from cinnabar_common.errors import DependencyUnavailable, Overloaded, SuiteError
from cinnabar_storage.adapters.memory.stores import MemoryShard
from cinnabar_storage.ports import Copy
from cinnabar_storage.records import (
    DeadLetterQuery,
    Lsn,
    NewSubmission,
    Submission,
    SubmissionKey,
    SubmissionQuery,
    TaskKey,
)
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.storage_domain import dead_letter, new_tenant, submission

T = TypeVar("T")
SHARDS = 4
DOWN = DependencyUnavailable("postgres")


class Failing(MemoryShard):
    """A shard that fails to be read: at once, or after so many reads."""

    def __init__(self) -> None:
        super().__init__()
        # Shared by all views of the shard: how many reads go well, and what comes then.
        self._failure: list[tuple[int, SuiteError]] = []

    def fail(self, error: SuiteError, *, after: int = 0) -> None:
        """From the read after the next ``after`` on."""
        self._failure[:] = [(after, error)]

    def mend(self) -> None:
        """No read fails any more."""
        self._failure.clear()

    async def read(self, work: Callable[[Copy], Awaitable[T]], *, min_lsn: Lsn) -> T:
        return await self.read_primary(work)

    async def read_primary(self, work: Callable[[Copy], Awaitable[T]]) -> T:
        if self._failure:
            left, error = self._failure.pop()
            self._failure.append((left - 1, error))
            if left <= 0:
                raise error
        return await work(self)


class World:
    """Rows on four shards."""

    def __init__(self) -> None:
        self.failing = [Failing() for _ in range(SHARDS)]
        self.shards = Shards(self.failing)
        self.submissions = Submissions(self.shards)
        self.tasks = Tasks(self.shards)
        self.tenant = new_tenant()
        self.rows: list[NewSubmission] = []

    async def fill(self, count: int) -> None:
        """Creates so many submissions, each with a dead letter."""
        self.rows = [submission(self.tenant) for _ in range(count)]
        await self.submissions.create(self.rows)
        await self.tasks.commit([dead_letter(row) for row in self.rows])

    def ids(self, *, without: tuple[int, ...] = ()) -> list[str]:
        """Of all that are not on these shards, ascending."""
        ids = [row.submission_id for row in self.rows]
        return sorted(one for one in ids if self.shards.map.shard_of_id(one) not in without)

    def query(self, before: str = "", *, limit: int = 7, author: str = "") -> SubmissionQuery:
        """A page of them."""
        return SubmissionQuery(self.tenant, "net", "a1", author, before, limit)


@pytest.fixture
async def stored() -> World:
    made = World()
    await made.fill(60)
    assert {made.shards.map.shard_of_id(row.submission_id) for row in made.rows} == set(range(SHARDS))
    return made


async def test_what_is_on_other_shards_is_listed_without_a_gap_and_the_rest_is_named(stored: World) -> None:
    stored.failing[1].fail(DOWN)
    stored.failing[3].fail(DOWN)
    seen: list[str] = []
    more = True
    while more:
        page, more, unreachable = await stored.submissions.list(stored.query(seen[-1] if seen else ""), [])
        assert list(unreachable) == [1, 3]
        seen += [one.row.submission_id for one in page]
    assert seen == stored.ids(without=(1, 3))[::-1]


async def test_a_shard_that_comes_back_is_in_the_pages_from_then_on(stored: World) -> None:
    stored.failing[2].fail(DOWN)
    first = await stored.submissions.list(stored.query(), [])
    last = first.submissions[-1].row.submission_id
    stored.failing[2].mend()
    rest = await stored.submissions.list(stored.query(last, limit=100), [])
    assert not rest.unreachable
    assert [one.row.submission_id for one in rest.submissions] == [
        one for one in stored.ids()[::-1] if one < last
    ]


async def test_a_shard_that_is_lost_in_the_middle_of_a_page_is_missing_from_it(stored: World) -> None:
    stored.failing[0].fail(DOWN, after=1)  # it still says which ids it has
    page, more, unreachable = await stored.submissions.list(stored.query(limit=60), [])
    assert list(unreachable) == [0]
    assert not more
    assert [one.row.submission_id for one in page] == stored.ids(without=(0,))[::-1]


async def test_a_page_of_rows_that_are_gone_gives_way_to_the_next(stored: World) -> None:
    class Forgetful(Failing):
        async def submissions(
            self, keys: Sequence[SubmissionKey], *, max_bytes: int
        ) -> tuple[list[Submission], list[SubmissionKey]]:
            found, left_out = await super().submissions(keys, max_bytes=max_bytes)
            return [one for one in found if one.row.submission_id not in gone], left_out

    world, gone = World(), set[str]()
    world.failing[:] = [Forgetful() for _ in range(SHARDS)]
    world.shards = Shards(world.failing)
    world.submissions, world.tasks = Submissions(world.shards), Tasks(world.shards)
    await world.fill(20)
    gone.update(world.ids()[-12:])
    page = await world.submissions.list(world.query(limit=5), [])
    assert [one.row.submission_id for one in page.submissions] == world.ids()[-15:-12][::-1]
    assert page.more


@pytest.mark.parametrize("after", [0, 1])
async def test_nothing_is_no_list_when_no_shard_can_be_reached(stored: World, after: int) -> None:
    for shard in stored.failing:
        shard.fail(DOWN, after=after)
    with pytest.raises(DependencyUnavailable):
        await stored.submissions.list(stored.query(), [])


async def test_a_page_of_which_every_row_is_lost_is_no_page(stored: World) -> None:
    newest = stored.ids()[-1]
    shard = stored.shards.map.shard_of_id(newest)
    assert shard is not None
    stored.failing[shard].fail(DOWN, after=1)
    with pytest.raises(DependencyUnavailable):  # it would have to say where to go on
        await stored.submissions.list(stored.query(limit=1), [])


async def test_the_list_of_a_student_is_on_one_shard(stored: World) -> None:
    author = stored.rows[0].author
    shard = stored.shards.map.shard_of_id(stored.rows[0].submission_id)
    assert shard is not None
    stored.failing[(shard + 1) % SHARDS].fail(DOWN)
    page = await stored.submissions.list(stored.query(author=author), [])
    assert page.submissions[0].row.author == author
    assert not page.unreachable
    stored.failing[shard].fail(DOWN)
    with pytest.raises(DependencyUnavailable):
        await stored.submissions.list(stored.query(author=author), [])


async def test_a_busy_shard_is_not_a_missing_one(stored: World) -> None:
    stored.failing[1].fail(Overloaded("storage.shard-1"))
    with pytest.raises(Overloaded):
        await stored.submissions.list(stored.query(), [])


async def test_dead_letters_of_other_shards_are_listed_and_the_rest_is_named(stored: World) -> None:
    stored.failing[2].fail(DOWN)
    seen: list[str] = []
    more = True
    while more:
        after = TaskKey(seen[-1], "q1") if seen else TaskKey("", "")
        page, more, unreachable = await stored.tasks.dead_letters(
            DeadLetterQuery(stored.tenant, "", after, 7)
        )
        assert list(unreachable) == [2]
        seen += [letter.task.submission_id for letter in page]
    assert seen == stored.ids(without=(2,))
