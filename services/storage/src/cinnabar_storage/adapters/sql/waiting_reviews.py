"""Reviews that wait for a person, of one shard. Whoever changes grades keeps them true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_storage.adapters.sql.held import held, held_args
from cinnabar_storage.adapters.sql.reviews import locked
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.records import Grade, Lsn
from cinnabar_storage.reviewing.waiting_records import Acceptance, Accepted, ReviewQuery, WaitingReview

_COLUMNS = """r.submission_id, r.item_id, r.course, r.assignment, s.author, r.generation, r.flags, r.score,
    r.max_score, r.create_time"""
# A review of a grade that does not count any more may be left behind by whoever overtook it just then.
_COUNTS = """NOT EXISTS (
    SELECT FROM grades g
    WHERE g.submission_id = r.submission_id AND g.item_id = r.item_id AND g.tenant = r.tenant
        AND g.kind <> 3 AND g.generation > r.generation
)"""
# In the order of time, whatever the shard: an index has it for an assignment, another for a tenant.
_WAITING_REVIEWS = f"""
SELECT {_COLUMNS}
FROM reviews r JOIN submissions s ON s.submission_id = r.submission_id AND s.tenant = r.tenant
WHERE r.tenant = $1 AND ($2 = '' OR r.course = $2) AND ($3 = '' OR r.assignment = $3)
    AND ($4 = '' OR $4 = ANY(r.flags))
    AND (r.create_time, r.submission_id, r.item_id)
        > (timestamptz 'epoch' + $5::bigint * interval '1 microsecond', $6, $7)
    AND {held("r.submission_id", "$9", "$10")} AND {_COUNTS}
ORDER BY r.create_time, r.submission_id, r.item_id LIMIT $8
"""
# The outer grade is that of the snapshot: accepting changes no grade.
_ACCEPT = f"""
WITH accepted AS (
    DELETE FROM reviews r USING submissions s
    WHERE r.submission_id = $1 AND r.tenant = $2 AND r.item_id = $3 AND r.course = $4 AND r.assignment = $5
        AND s.submission_id = r.submission_id AND s.tenant = r.tenant AND {_COUNTS}
    RETURNING {_COLUMNS}, r.tenant
), audited AS (
    INSERT INTO audit (at, tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT clock_timestamp(), tenant, $6, 'accept-review', submission_id, item_id, generation, $7
    FROM accepted
)
SELECT r.submission_id, r.item_id, r.course, r.assignment, r.author, r.generation, r.flags, r.score,
       r.max_score, r.create_time, g.grade, g.create_time, g.kind, g.revision_id, g.regrade_id
FROM accepted r
JOIN grades g ON g.submission_id = r.submission_id AND g.item_id = r.item_id AND g.tenant = r.tenant
    AND g.generation = r.generation
"""


async def waiting_reviews(server: Server, query: ReviewQuery) -> list[WaitingReview]:
    """See ports.Copy."""
    rows = await server.read(
        lambda driver: driver.fetch(
            *(_WAITING_REVIEWS, query.tenant, query.course, query.assignment, query.flag),
            *(*query.after, query.limit, *held_args(server.buckets)),
        )
    )
    return list(map(_review, rows))


async def accept_review(server: Server, acceptance: Acceptance) -> tuple[Accepted, Lsn]:
    """See ports.Shard."""

    async def work(driver: Driver) -> Accepted:
        tenant, submission_id = acceptance.key
        state = await locked(driver, acceptance.key)
        rows = await driver.fetch(
            *(_ACCEPT, submission_id, tenant, acceptance.item_id, acceptance.course, acceptance.assignment),
            *(acceptance.actor, acceptance.comment),
        )
        if not rows:
            raise ResourceNotFound(f"{submission_id}/{acceptance.item_id}")
        if acceptance.etag and acceptance.etag != state.etag:
            raise EtagMismatch(submission_id)  # and nothing is committed
        return _accepted(rows[0])

    accepted = await server.transact(work)
    # After the commit, so that it is covered.
    return accepted, await server.run(flushed)


def _review(row: Sequence[Any]) -> WaitingReview:
    return WaitingReview._make((*row[:6], tuple(row[6]), *row[7:9], micros(row[9])))


def _accepted(row: Sequence[Any]) -> Accepted:
    found = _review(row)
    grade = Grade(
        *(found.submission_id, found.item_id, found.generation, found.score, row[10]),
        create_time=micros(row[11]),
        kind=row[12],
        revision_id=row[13] or "",
        regrade_id=row[14] or "",
    )
    return Accepted(found, grade)
