"""A bucket moves beneath what is under way: counts, rebuilds, erasures, files, regrades, the cache."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest_asyncio

from cinnabar.storage.v1.records_pb2 import SubmissionRecord
from cinnabar_common.clock import SystemClock
from cinnabar_common.names import Bucket, bucket_of, new_id
from cinnabar_local import sql
from cinnabar_storage import responses
from cinnabar_storage.adapters.memory.objects import MemoryObjects
from cinnabar_storage.adapters.sql.shard import sql_shard
from cinnabar_storage.adapters.sql.tables import metadata
from cinnabar_storage.assignments import Assignments
from cinnabar_storage.cached.composition import caching
from cinnabar_storage.cached.reads import CachedReads
from cinnabar_storage.config import StorageConfig
from cinnabar_storage.files.records import AnswerPlace, Upload, Use, Verdict
from cinnabar_storage.files.uploads import Uploads
from cinnabar_storage.privacy.erasures import Erasures
from cinnabar_storage.records import Created, CreateStatus, Doubt, NewSubmission, Position, TaskKey
from cinnabar_storage.regrading.records import RegradeState, Tally
from cinnabar_storage.reviewing.waiting import WaitingReviews
from cinnabar_storage.reviewing.waiting_records import FROM_THE_OLDEST, Acceptance, ReviewQuery
from cinnabar_storage.shards.live_map import live_map
from cinnabar_storage.shards.moves import Move
from cinnabar_storage.shards.moving import moving
from cinnabar_storage.shards.sharding import Shards
from cinnabar_storage.submissions import Submissions
from cinnabar_storage.tasks import Tasks
from tests.support.objects import facts_of
from tests.support.regrade_domain import Course
from tests.support.servers import ShardUrls
from tests.support.storage_domain import grade, key, new_tenant, submission
from tests.support.storage_service import config_for
from tests.support.storage_traffic import authors_of

MOVED = 200
CONTENT = b"a long answer"
Step = Callable[[], Awaitable[None]]


@dataclass
class Process:
    """The domain of one storage process: its own map and cache."""

    shards: Shards
    reads: CachedReads
    submissions: Submissions = field(init=False)
    tasks: Tasks = field(init=False)
    reviews: WaitingReviews = field(init=False)

    def __post_init__(self) -> None:
        self.submissions, self.tasks = Submissions(self.shards), Tasks(self.shards)
        self.reviews = WaitingReviews(self.shards)

    async def cached(self, row: NewSubmission, positions: list[Position]) -> SubmissionRecord:
        found = await self.reads.submission(key(row), positions)
        assert found is not None
        return SubmissionRecord.FromString(found)

    async def open_tasks(self, shard: int, epoch: int) -> set[str]:
        page, more = await self.tasks.open(shard, TaskKey("", ""), 1000, epoch)
        assert not more
        return {task.submission_id for task in page}


async def process(exits: AsyncExitStack, config: StorageConfig) -> Process:
    """A process whose map is refreshed only when it must be."""
    shards = [
        await exits.enter_async_context(sql_shard(index, urls, config))
        for index, urls in enumerate(config.urls())
    ]
    source = await exits.enter_async_context(live_map(shards, poll_seconds=3600, wait_seconds=20))
    cached = await exits.enter_async_context(caching(config))
    together = Shards(shards, source, invalidations=cached.invalidations)
    reads = CachedReads(
        cached.cache,
        together,
        Submissions(together),
        Assignments(together),
        encode_submission=lambda found: responses.submission(found).SerializeToString(),
        encode_assignment=lambda found: responses.assignment(found).SerializeToString(),
    )
    return Process(together, reads)


@dataclass
class World:
    """Two processes on two shards, and a bucket that moves from the first to the second."""

    urls: list[ShardUrls]
    config: StorageConfig
    one: Process
    two: Process
    tenant: str = field(default_factory=new_tenant)

    def author(self, number: int = 0, bucket: int = MOVED) -> str:
        return authors_of([bucket], self.tenant, each=number + 1)[number]

    async def move(self, steps: dict[str, Step], always: Step | None = None) -> None:
        """Moves the bucket; each of ``steps`` happens when the mover first comes there."""
        left = dict(steps)

        async def at_step(step: str, bucket: int) -> None:
            if always is not None:
                await always()
            if (happens := left.pop(step, None)) is not None:
                await happens()

        async with moving(self.config, at_step=at_step) as (ledger, mover):
            await ledger.plan([Move(MOVED, 0, 1)], [], "operator")
            await mover.run_once()
            assert await ledger.moves() == []
        assert left == {}

    async def rows(self, ids: set[str]) -> dict[str, list[int]]:
        """How many rows of these ids each shard has, of all tables that move."""
        found: dict[str, list[int]] = {}
        for table in metadata.sorted_tables:
            if "moves_by" not in table.info:
                continue
            query = f"SELECT count(*) FROM {table.name} WHERE {table.info['moves_by']} = ANY($1::text[])"
            for shard in self.urls:
                async with sql.connected(shard.primary_url) as connection:
                    count = await connection.fetchval(query, sorted(ids))
                assert isinstance(count, int)
                found.setdefault(table.name, []).append(count)
        return {table: counts for table, counts in found.items() if any(counts)}


@pytest_asyncio.fixture
async def world(migrated_shards: list[ShardUrls]) -> AsyncGenerator[World]:
    config = config_for(migrated_shards, move_clean_seconds=0.05)
    async with AsyncExitStack() as exits:
        yield World(migrated_shards, config, await process(exits, config), await process(exits, config))


async def test_every_task_is_counted_once_and_none_is_missed_by_a_rebuild(world: World) -> None:
    authors = [world.author(), world.author(bucket=4), world.author(bucket=700)]
    rows = [submission(world.tenant, author, items=("q1", "q2")) for author in authors]
    await world.one.submissions.create(rows)
    await world.one.tasks.commit([grade(row) for row in rows])
    expected = await world.one.tasks.count_all()
    assert (expected.accepted, expected.open, expected.graded) == (6, 3, 3)

    async def counted() -> None:
        for one in (world.one, world.two):
            assert await one.tasks.count_all() == expected

    seen: set[str] = set()
    began, came = await world.two.tasks.arrivals()

    async def look_where_it_goes() -> None:
        seen.update(await world.two.open_tasks(1, began))

    async def look_where_it_was() -> None:
        seen.update(await world.two.open_tasks(0, began))

    # Where it goes is read before it comes, where it was after it is gone.
    await world.move({"accept": look_where_it_goes, "rest": look_where_it_was}, counted)
    assert rows[0].submission_id not in seen
    assert seen == {row.submission_id for row in rows[1:]}
    epoch, after = await world.two.tasks.arrivals()
    assert [now > before for before, now in zip(came, after, strict=True)] == [False, True]
    assert epoch > began
    assert rows[0].submission_id in await world.two.open_tasks(1, epoch)
    await counted()


async def test_an_erasure_leaves_nothing_on_either_shard(world: World) -> None:
    """Of two students: one is erased while the rows are copied, one between the flip and the cleaning."""
    objects = MemoryObjects()
    erasures = Erasures(world.one.shards, objects, subject_key="k" * 32)
    ann, bob, cid = (world.author(number) for number in range(3))
    rows = [submission(world.tenant, author, items=("q1", "q2")) for author in (ann, ann, bob, bob, cid)]
    await world.one.submissions.create(rows)
    doubt = Doubt(("ODD",), 2.0)
    await world.one.tasks.commit([grade(row)._replace(doubt=doubt) for row in rows])

    def erase(student: str) -> Step:
        async def erased() -> None:
            wanted = new_id(bucket_of(world.tenant, student))
            await erasures.begin(
                world.tenant, student, erasure_id=wanted, actor="operator/root", reason="asked"
            )
            for shard in (0, 1):
                while await erasures.erase_one(shard):
                    pass
            proof = await erasures.get(world.tenant, wanted)
            assert (proof.done, proof.student, proof.submissions, proof.grades) == (True, "", 2, 2)

        return erased

    await world.move({"copy": erase(ann), "rest": erase(bob)})
    assert await world.rows({row.submission_id for row in rows[:4]}) == {}
    assert await world.rows({rows[4].submission_id}) == {
        "submissions": [0, 1],
        "tasks": [0, 1],
        "grades": [0, 1],
        "reviews": [0, 1],
    }


async def test_files_are_attached_once(world: World) -> None:
    objects = MemoryObjects()
    uploads = Uploads(world.one.shards, objects, SystemClock(), form_seconds=900, link_seconds=300)
    author = world.author()
    made: list[Upload] = []
    rows: list[NewSubmission] = []

    async def upload() -> Upload:
        place = AnswerPlace("net", "a1", "q1", author)
        announced, _, _ = await uploads.create(world.tenant, place, facts_of(CONTENT))
        objects.put(announced.object_key, CONTENT)
        [result] = await uploads.verify(world.tenant, [Use(announced.upload_id, "q1", "net", "a1", author)])
        assert result.verdict is Verdict.READY
        made.append(announced)
        return announced

    async def attach(one: Upload) -> None:
        row = submission(world.tenant, author)._replace(upload_ids=(one.upload_id,))
        assert await hand_in(row) == [Created(CreateStatus.CREATED, row.submission_id)]
        rows.append(row)

    async def hand_in(row: NewSubmission) -> list[Created]:
        return (await world.one.submissions.create([row]))[0]

    first, second = await upload(), await upload()

    async def beneath() -> None:
        await attach(first)
        await upload()

    async def flipped() -> None:
        await attach(second)
        await attach(made[2])
        again = submission(world.tenant, author)._replace(upload_ids=(first.upload_id,))
        assert await hand_in(again) == [Created(CreateStatus.UPLOAD_REFUSED, again.submission_id)]

    await world.move({"copy": beneath, "rest": flipped})
    assert await world.rows({one.upload_id for one in made}) == {"uploads": [0, 3]}
    found = await world.one.shards[1].uploads(world.tenant, [one.upload_id for one in made])
    assert {one.upload_id: one.submission_id for one in found} == {
        one.upload_id: row.submission_id for one, row in zip(made, rows, strict=True)
    }


async def test_a_campaign_and_reviews_go_on(world: World) -> None:
    course = Course(
        *(world.one.shards, world.one.submissions, world.one.tasks, Assignments(world.one.shards)),
        tenant=world.tenant,
    )
    await course.open()
    rows = await course.submit(world.author(), world.author(1), world.author(bucket=700))
    campaign = await course.opened()

    async def waiting() -> list[str]:
        query = ReviewQuery(world.tenant, "", "", "", FROM_THE_OLDEST, 10)
        page = await world.two.reviews.list(query, [])
        return [review.submission_id for review in page.reviews]

    async def graded(row: NewSubmission, item: str, doubt: Doubt | None = None) -> None:
        wanted = grade(row, item, generation=2, fence=1 << 40)._replace(doubt=doubt)
        [result], _ = await world.two.tasks.commit([wanted])
        assert result.name == "COMMITTED"

    async def beneath() -> None:
        await graded(rows[0], "q1", Doubt(("ODD",), 2.0))
        await graded(rows[1], "q1", Doubt((), 2.0))
        await graded(rows[2], "q1")

    async def flipped() -> None:
        await graded(rows[0], "q2")
        wanted = Acceptance(key(rows[1]), "q1", "net", "a1", "instructor/ann")
        await world.one.reviews.accept(wanted)

    await world.move({"copy": beneath, "rest": flipped})
    for row in rows[1:]:
        await graded(row, "q2")
    assert await course.state(campaign) is RegradeState.DONE
    assert (await course.see(campaign)).tally == Tally(opened=6, graded=6)
    await course.conserved()
    assert set(await waiting()) == {rows[0].submission_id}


async def test_what_is_cached_is_not_stale_after_the_flip(world: World) -> None:
    row = submission(world.tenant, world.author(), items=("q1", "q2"))
    _, created = await world.one.submissions.create([row])
    for one in (world.one, world.two):
        for _ in range(2):
            assert len((await one.cached(row, created)).grades) == 0

    async def flipped() -> None:
        # One process has not heard of the move: it is refused, looks, and finds where the bucket is.
        _, committed = await world.two.tasks.commit([grade(row)])
        assert [position.shard for position in committed] == [1]
        for positions in ([], committed):
            assert len((await world.two.cached(row, positions)).grades) == 1
        # The other sees what its caller was told of, although its own copy is of the old shard.
        assert len((await world.one.cached(row, committed)).grades) == 1
        _, again = await world.one.tasks.commit([grade(row, "q2", fence=3)])
        assert len((await world.one.cached(row, [])).grades) == 2
        assert len((await world.two.cached(row, [*committed, *again])).grades) == 2

    await world.move({"rest": flipped})
    for one in (world.one, world.two):
        assert len((await one.cached(row, [])).grades) == 2
    assert world.one.shards.map.shard_of(Bucket(MOVED)) == 1
