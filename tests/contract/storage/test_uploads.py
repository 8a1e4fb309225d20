"""Uploads and the submissions that refer to them: the same over memory and Postgres."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from cinnabar_common.errors import DependencyUnavailable, ResourceNotFound
from cinnabar_storage.adapters.memory.objects import MemoryObjects
from cinnabar_storage.files.collector import (
    DOOMED_SECONDS,
    LATE_SECONDS,
    ORPHAN_SECONDS,
    STRAY_SECONDS,
    Collector,
)
from cinnabar_storage.files.records import (
    FILES,
    STAGING,
    AnswerPlace,
    ArtifactPlace,
    FileFacts,
    Upload,
    Use,
    Verdict,
)
from cinnabar_storage.files.uploads import Uploads
from cinnabar_storage.records import CreateStatus, Micros, NewSubmission
from cinnabar_storage.shards.sharding import author_bucket
from tests.contract.storage.conftest import Stored
from tests.support.objects import facts_of
from tests.support.storage_domain import new_tenant, sought, submission

CONTENT = b"an answer too long for a form field"
FORM_SECONDS = 900


@dataclass
class ManualClock:
    """Stands still until it is moved."""

    now: float = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Desk:
    """What a student does, on one kind of shard."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.tenant = new_tenant()
        self.clock = ManualClock()
        self.objects = MemoryObjects(self.clock)
        self.uploads = Uploads(
            stored.shards, self.objects, self.clock, form_seconds=FORM_SECONDS, link_seconds=300
        )

    async def announce(
        self, author: str = "ann", *, item: str = "q1", facts: FileFacts | None = None
    ) -> Upload:
        place = AnswerPlace("net", "a1", item, author)
        upload, _, _ = await self.uploads.create(self.tenant, place, facts or facts_of(CONTENT))
        return upload

    async def uploaded(self, author: str = "ann", *, item: str = "q1") -> Upload:
        upload = await self.announce(author, item=item)
        self.objects.put(upload.object_key, CONTENT)
        return upload

    async def ready(self, author: str = "ann") -> Upload:
        upload = await self.uploaded(author)
        assert await self.verdict(upload) is Verdict.READY
        return upload

    async def verdict(self, upload: Upload, **changes: str) -> Verdict:
        use = Use(upload.upload_id, upload.item_id, upload.course, upload.assignment, upload.author)
        [result] = await self.uploads.verify(self.tenant, [use._replace(**changes)])
        assert (result.facts == upload.facts) == (result.verdict is Verdict.READY)
        return result.verdict

    async def create(self, *rows: NewSubmission) -> list[CreateStatus]:
        created, _ = await self.stored.submissions.create(rows)
        return [one.status for one in created]

    def referring(
        self, *uploads: Upload, author: str = "ann", request_id: str | None = None
    ) -> NewSubmission:
        row = submission(self.tenant, author, request_id=request_id, fingerprint=b"same")
        return row._replace(upload_ids=tuple(upload.upload_id for upload in uploads))

    async def now(self, upload: Upload) -> Upload | None:
        shard = self.stored.shards.map.shard_of_id(upload.upload_id)
        assert shard is not None
        found = await self.stored.shards[shard].uploads(self.tenant, [upload.upload_id])
        return found[0] if found else None

    def collector(self) -> Collector:
        return Collector(self.stored.shards, self.objects, self.clock, leadership=_alone, seconds=1)

    def keys(self) -> list[str]:
        return sorted(self.objects.objects)


@asynccontextmanager
async def _alone() -> AsyncGenerator[bool]:
    yield True


@pytest.fixture
def desk(stored: Stored) -> Desk:
    return Desk(stored)


async def test_what_is_uploaded_as_announced_can_be_handed_in_once(desk: Desk) -> None:
    upload = await desk.ready()
    first = desk.referring(upload)
    assert await desk.create(first) == [CreateStatus.CREATED]
    assert await desk.verdict(upload) is Verdict.ATTACHED
    stored = await desk.now(upload)
    assert stored is not None
    assert stored.submission_id == first.submission_id
    assert await desk.create(desk.referring(upload)) == [CreateStatus.UPLOAD_REFUSED]


async def test_a_repeated_hand_in_finds_its_own_uploads(desk: Desk) -> None:
    upload = await desk.ready()
    first = desk.referring(upload, request_id="r1")
    again = desk.referring(upload, request_id="r1")
    assert await desk.create(first) == [CreateStatus.CREATED]
    assert await desk.create(first, again) == [CreateStatus.DUPLICATE, CreateStatus.DUPLICATE]
    other = again._replace(fingerprint=b"other")
    assert await desk.create(other) == [CreateStatus.CONFLICT]
    assert await desk.create(sought(desk.tenant, "ann", "r1", b"same")) == [CreateStatus.DUPLICATE]


async def test_of_two_in_one_batch_the_first_gets_the_upload(desk: Desk) -> None:
    upload, bobs = await desk.ready(), await desk.ready("bob")
    rows = [desk.referring(upload), desk.referring(upload), submission(desk.tenant, "ann")]
    rows.append(desk.referring(bobs, author="bob"))
    created, refused = CreateStatus.CREATED, CreateStatus.UPLOAD_REFUSED
    assert await desk.create(*rows) == [created, refused, created, created]


async def test_a_refused_hand_in_leaves_nothing_behind(desk: Desk) -> None:
    good, pending = await desk.ready(), await desk.uploaded()
    row = desk.referring(good, pending)
    assert await desk.create(row) == [CreateStatus.UPLOAD_REFUSED]
    assert await desk.verdict(good) is Verdict.READY
    assert await desk.verdict(pending) is Verdict.READY
    assert await desk.create(row) == [CreateStatus.CREATED]


@pytest.mark.parametrize(
    "change", [{"author": "bob"}, {"course": "other"}, {"assignment": "a2"}, {"tenant": "somebody"}]
)
async def test_the_upload_of_somebody_else_is_none_at_all(desk: Desk, change: dict[str, str]) -> None:
    upload = await desk.ready()
    tenant = change.get("tenant", desk.tenant)
    use = Use(upload.upload_id, "q1", "net", "a1", "ann")
    use = use._replace(**{name: value for name, value in change.items() if name != "tenant"})
    [result] = await desk.uploads.verify(tenant, [use])
    assert result.verdict is Verdict.UNKNOWN
    assert result.facts is None
    row = submission(tenant, use.author, course=use.course, assignment=use.assignment)
    assert await desk.create(row._replace(upload_ids=(upload.upload_id,))) == [CreateStatus.UPLOAD_REFUSED]


async def test_an_upload_is_for_one_item(desk: Desk) -> None:
    upload = await desk.ready()
    assert await desk.verdict(upload, item_id="q2") is Verdict.WRONG_ITEM


async def test_what_was_not_uploaded_or_is_something_else_is_refused(desk: Desk) -> None:
    upload = await desk.announce()
    assert await desk.verdict(upload) is Verdict.MISSING
    desk.objects.put(upload.object_key, CONTENT + b"!")
    assert await desk.verdict(upload) is Verdict.WRONG_SIZE
    desk.objects.put(upload.object_key, CONTENT, "text/html")
    assert await desk.verdict(upload) is Verdict.WRONG_CONTENT_TYPE
    desk.objects.put(upload.object_key, CONTENT.upper())
    assert await desk.verdict(upload) is Verdict.WRONG_SHA256
    assert desk.keys() == [upload.object_key]
    desk.objects.put(upload.object_key, CONTENT)
    assert await desk.verdict(upload) is Verdict.READY


async def test_a_form_used_again_does_not_change_what_was_verified(desk: Desk) -> None:
    upload = await desk.ready()
    desk.objects.put(upload.object_key, CONTENT.upper())
    assert await desk.verdict(upload) is Verdict.READY
    stored = await desk.now(upload)
    assert stored is not None
    assert stored.object_key.startswith(FILES)
    assert desk.objects.objects[stored.object_key][0] == CONTENT


async def test_an_upload_expires(desk: Desk) -> None:
    ready, uploaded = await desk.ready(), await desk.uploaded()
    desk.clock.now += FORM_SECONDS
    assert await desk.verdict(ready) is Verdict.EXPIRED
    assert await desk.verdict(uploaded) is Verdict.EXPIRED


async def test_without_the_store_of_objects_nothing_is_said_of_uploads(desk: Desk) -> None:
    upload, ready = await desk.uploaded(), await desk.ready()
    desk.objects.outage = True
    assert await desk.verdict(upload) is Verdict.UNAVAILABLE
    assert await desk.verdict(ready) is Verdict.READY  # it was looked at before
    nowhere = Uploads(desk.stored.shards, None, desk.clock, form_seconds=1, link_seconds=1)
    with pytest.raises(DependencyUnavailable) as refused:
        await nowhere.create(desk.tenant, AnswerPlace("net", "a1", "q1", "ann"), facts_of(CONTENT))
    assert refused.value.metadata == {"dependency": "objects"}


async def test_an_artifact_belongs_to_the_submission_that_it_was_made_for(desk: Desk) -> None:
    row, other = submission(desk.tenant, "ann"), submission(desk.tenant, "ann")
    await desk.create(row, other)
    place = ArtifactPlace(row.submission_id, "q1")
    upload, _, _ = await desk.uploads.create(desk.tenant, place, facts_of(b"log"))
    assert (upload.course, upload.assignment, upload.author) == ("net", "a1", "ann")
    desk.objects.put(upload.object_key, b"log")
    use = Use(upload.upload_id, "q1", submission_id=row.submission_id)
    foreign = use._replace(submission_id=other.submission_id)
    as_answer = Use(upload.upload_id, "q1", "net", "a1", "ann")
    verdicts = [one.verdict for one in await desk.uploads.verify(desk.tenant, [use, foreign, as_answer])]
    assert verdicts == [Verdict.READY, Verdict.UNKNOWN, Verdict.UNKNOWN]
    with pytest.raises(ResourceNotFound):
        await desk.uploads.create(new_tenant(), place, facts_of(b"log"))


async def test_links_lead_to_what_is_verified_and_the_callers(desk: Desk) -> None:
    ready, pending = await desk.ready(), await desk.uploaded()

    async def ids(tenant: str, author: str = "", submission_id: str = "") -> list[str]:
        found, _ = await desk.uploads.downloads(
            *(tenant, [ready.upload_id, pending.upload_id, "none"]),
            author=author,
            submission_id=submission_id,
            internal=False,
        )
        return [upload.upload_id for upload, _ in found]

    assert await ids(desk.tenant) == await ids(desk.tenant, author="ann") == [ready.upload_id]
    assert await ids(desk.tenant, author="bob") == await ids(new_tenant()) == []
    assert await ids(desk.tenant, submission_id="x") == []
    desk.objects.objects.clear()
    assert await ids(desk.tenant) == []


async def test_expired_uploads_are_collected_and_others_are_not(desk: Desk) -> None:
    attached, ready, pending = await desk.ready(), await desk.ready(), await desk.uploaded()
    assert await desk.create(desk.referring(attached)) == [CreateStatus.CREATED]
    desk.clock.now += FORM_SECONDS + LATE_SECONDS - 1
    await desk.collector().collect_expired()
    assert await desk.now(ready) is not None
    desk.clock.now += 2
    await desk.collector().collect_expired()
    assert [await desk.now(upload) for upload in (ready, pending)] == [None, None]
    kept = await desk.now(attached)
    assert kept is not None
    assert desk.keys() == [kept.object_key]


async def test_what_is_doomed_cannot_be_handed_in_and_is_tried_again(desk: Desk) -> None:
    ready = await desk.ready()
    desk.clock.now += FORM_SECONDS + LATE_SECONDS + 1
    desk.objects.outage = True
    with pytest.raises(DependencyUnavailable):
        await desk.collector().collect_expired()
    assert await desk.create(desk.referring(ready)) == [CreateStatus.UPLOAD_REFUSED]
    desk.objects.outage = False
    await desk.collector().collect_expired()
    assert await desk.now(ready) is not None  # the other one has its time
    desk.clock.now += DOOMED_SECONDS + LATE_SECONDS + 1
    await desk.collector().collect_expired()
    assert (await desk.now(ready), desk.keys()) == (None, [])


async def test_objects_without_a_row_are_collected_after_a_day(desk: Desk) -> None:
    kept = await desk.ready()
    assert await desk.create(desk.referring(kept)) == [CreateStatus.CREATED]
    stray = f"{FILES}{desk.tenant}/{kept.upload_id}/somebody-died-after-the-copy"
    desk.objects.put(stray, CONTENT)
    desk.objects.put(f"{STAGING}{desk.tenant}/{kept.upload_id}/left", CONTENT)
    collector = desk.collector()

    async def round_of_all() -> int:
        while await collector.collect_orphans():
            pass
        return len(desk.keys())

    desk.clock.now += ORPHAN_SECONDS - 1
    assert await round_of_all() == 3
    desk.clock.now += 2
    assert await round_of_all() == 2  # seen once without a row: perhaps it is on its way
    desk.clock.now += STRAY_SECONDS
    assert await round_of_all() == 1
    stored = await desk.now(kept)
    assert stored is not None
    assert desk.keys() == [stored.object_key]


async def test_the_files_of_an_author_are_known(desk: Desk) -> None:
    first, second, bobs = await desk.ready(), await desk.uploaded(), await desk.ready("bob")
    await desk.create(desk.referring(first))

    async def of(tenant: str, author: str, limit: int = 10) -> set[str]:
        shard = desk.stored.shards.map.shard_of(author_bucket(desk.tenant, author))
        return {one.upload_id for one in await desk.stored.shards[shard].uploads_of(tenant, author, limit)}

    assert await of(desk.tenant, "ann") == {first.upload_id, second.upload_id}
    assert len(await of(desk.tenant, "ann", 1)) == 1
    assert await of(desk.tenant, "bob") == {bobs.upload_id}
    assert await of(new_tenant(), "ann") == set()
    kept = await desk.now(bobs)
    assert kept is not None
    assert kept.create_time == Micros(int(desk.clock.now * 1_000_000))
