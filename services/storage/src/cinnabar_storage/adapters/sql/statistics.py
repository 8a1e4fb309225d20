"""Sums of scores of one shard, kept up to date by a follower of the audit.

`submission_scores` says what each submission has added to the sums in
`assignment_scores`; a change takes that away and adds what it would be now. So
the order of events, and seeing one twice, make no difference, and at every
commit the sums are those of the rows. Whoever changes them holds the lock of the
follower: `locked`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from cinnabar_common.names import Bucket
from cinnabar_storage.adapters.scores import scored
from cinnabar_storage.adapters.sql.follower import Work, with_rows
from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.records import Micros, SubmissionKey
from cinnabar_storage.scoring.records import (
    BINS,
    NOTHING,
    AssignmentScores,
    Contribution,
    ScoredItem,
    ScoreKey,
    ScoreSums,
    contributions,
    of_contribution,
    plus,
)
from cinnabar_storage.trail.audit import AuditRow

FOLLOWER = "statistics"
EVENTS_PER_STEP = 1000
_BUCKET_PAGE = 500

_ADD_FOLLOWER = "INSERT INTO audit_followers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING"
_LOCK_FOLLOWER = "SELECT name FROM audit_followers WHERE name = $1 FOR UPDATE"


def owned(column: str) -> str:
    """SQL: this shard owns the row with the id in ``column``; all of them while buckets are not given out."""
    return f"""(NOT EXISTS (SELECT FROM bucket_guard) OR EXISTS (
        SELECT FROM buckets b WHERE b.bucket = bucket_of_id({column}) AND b.state <= 3
    ))"""


# What another shard owns by now it counts, though the rows may still be here.
_SUBMISSIONS = f"""
SELECT s.submission_id, s.tenant, s.course, s.assignment
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
JOIN submissions s ON s.submission_id = k.submission_id AND s.tenant = k.tenant
WHERE {owned("s.submission_id")}
"""
_TASKS = """
SELECT t.submission_id, t.item_id
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
JOIN tasks t ON t.submission_id = k.submission_id AND t.tenant = k.tenant
WHERE NOT t.shadow
"""
_GRADES = """
SELECT DISTINCT ON (g.submission_id, g.item_id) g.submission_id, g.item_id, g.score, g.grade
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
JOIN grades g ON g.submission_id = k.submission_id AND g.tenant = k.tenant
WHERE g.kind <> 3
ORDER BY g.submission_id, g.item_id, g.generation DESC
"""
_BEFORE = """
SELECT c.submission_id, c.tenant, c.course, c.assignment, c.contributions
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
JOIN submission_scores c ON c.submission_id = k.submission_id AND c.tenant = k.tenant
"""
_FORGET = """
DELETE FROM submission_scores c USING unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
WHERE c.submission_id = k.submission_id AND c.tenant = k.tenant
"""
_REMEMBER = """
INSERT INTO submission_scores (submission_id, tenant, course, assignment, contributions)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (submission_id) DO UPDATE SET contributions = excluded.contributions
"""
_ADD = f"""
INSERT INTO assignment_scores AS a
    (tenant, course, assignment, item_id, criterion, count, total, squares, histogram)
SELECT given.tenant, given.course, given.assignment, given.item_id, given.criterion, given.count,
       given.total, given.squares, ($9::bigint[])[(given.n - 1) * {BINS} + 1 : given.n * {BINS}]
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::numeric[],
            $8::numeric[])
    WITH ORDINALITY AS given(tenant, course, assignment, item_id, criterion, count, total, squares, n)
ON CONFLICT (tenant, course, assignment, item_id, criterion) DO UPDATE
SET count = a.count + excluded.count, total = a.total + excluded.total,
    squares = a.squares + excluded.squares,
    histogram = (SELECT array_agg(x + y ORDER BY n)
                 FROM unnest(a.histogram, excluded.histogram) WITH ORDINALITY AS both_of(x, y, n))
"""
_DROP_EMPTY = """
DELETE FROM assignment_scores a
USING unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    AS k(tenant, course, assignment, item_id, criterion)
WHERE (a.tenant, a.course, a.assignment, a.item_id, a.criterion)
    = (k.tenant, k.course, k.assignment, k.item_id, k.criterion) AND a.count = 0
"""
# All tenants of a bucket: it moves as a whole.
_OF_BUCKET = """
SELECT tenant, submission_id FROM submissions
WHERE right(submission_id, 4) = $1 AND submission_id > $2 ORDER BY submission_id LIMIT $3
"""
_COUNTED_OF_BUCKET = """
SELECT tenant, submission_id FROM submission_scores
WHERE right(submission_id, 4) = $1 ORDER BY submission_id LIMIT $2
"""
# What was written and is not counted yet was begun no earlier than the first of it, in commit order, was:
# numbers of transactions are given when they first write.
_AS_OF = """
SELECT (extract(epoch FROM coalesce((
    SELECT a.at FROM audit a
    WHERE (a.xid, a.audit_id) > (coalesce(f.xid, 0), coalesce(f.audit_id, 0))
    ORDER BY a.xid, a.audit_id LIMIT 1
), now())) * 1000000)::bigint
FROM (SELECT $1::text AS name) AS wanted LEFT JOIN audit_followers f ON f.name = wanted.name
"""
SUMS = """
SELECT item_id, criterion, count, total, squares, histogram
FROM assignment_scores WHERE tenant = $1 AND course = $2 AND assignment = $3
"""


class SqlStatistics:
    """Implements statistics.ScoreRows on the primary of a shard."""

    _server: Server

    async def assignment_scores(self, tenant: str, course: str, assignment: str) -> AssignmentScores:
        async def work(driver: Driver) -> AssignmentScores:
            # The time first: what is counted between the two is only more.
            as_of = Micros(await driver.fetchval(_AS_OF, FOLLOWER))
            rows = await driver.fetch(SUMS, tenant, course, assignment)
            sums = {
                (row[0], row[1]): ScoreSums(row[2], int(row[3]), int(row[4]), tuple(row[5])) for row in rows
            }
            return AssignmentScores(as_of, sums)

        return await self._server.run(work)


async def locked(driver: Driver) -> None:
    """Waits until nobody else changes statistics of this shard; for the rest of the transaction."""
    await driver.fetchval(_ADD_FOLLOWER, FOLLOWER)
    await driver.fetchval(_LOCK_FOLLOWER, FOLLOWER)


async def refresh(driver: Driver, keys: Iterable[SubmissionKey]) -> None:
    """Makes the sums count these submissions as they are now; those that are gone no more.

    Inside of a transaction that is `locked`.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return
    arrays = ([key.tenant for key in wanted], [key.submission_id for key in wanted])
    now = await _current(driver, arrays)
    change = _Change()
    gone: list[SubmissionKey] = []
    for submission_id, tenant, course, assignment, encoded in await driver.fetch(_BEFORE, *arrays):
        known = now.get(submission_id)
        if known == (tenant, course, assignment, encoded):
            del now[submission_id]
            continue
        change.add((tenant, course, assignment), encoded, -1)
        if known is None:
            gone.append(SubmissionKey(tenant, submission_id))
    for *place, encoded in now.values():
        change.add(tuple(place), encoded, 1)
    if gone:
        await driver.fetchval(_FORGET, *zip(*gone, strict=True))
    if now:
        await driver.fetchval(_REMEMBER, list(now), *zip(*now.values(), strict=True))
    await change.apply(driver)


async def _current(
    driver: Driver, arrays: tuple[list[str], list[str]]
) -> dict[str, tuple[str, str, str, str]]:
    """By submission: tenant, course, assignment, and what it contributes; not those without a grade."""
    submissions = await driver.fetch(_SUBMISSIONS, *arrays)
    # Tasks before grades: what is graded in between shows as both, and the grade wins.
    tasks = await driver.fetch(_TASKS, *arrays)
    items: defaultdict[str, dict[str, ScoredItem]] = defaultdict(dict)
    for submission_id, item_id, score, grade in await driver.fetch(_GRADES, *arrays):
        items[submission_id][item_id] = scored(item_id, score, grade)
    ungraded = {row[0] for row in tasks if row[1] not in items.get(row[0], ())}
    return {
        row[0]: (
            *(row[1], row[2], row[3]),
            json.dumps(contributions(list(items[row[0]].values()), complete=row[0] not in ungraded)),
        )
        for row in submissions
        if row[0] in items
    }


class _Change:
    """What is to be added to sums."""

    def __init__(self) -> None:
        self._sums: defaultdict[ScoreKey, ScoreSums] = defaultdict(lambda: NOTHING)

    def add(self, place: tuple[str, ...], encoded: str, times: int) -> None:
        """Adds what a submission contributed, or takes it away when ``times`` is -1."""
        tenant, course, assignment = place
        for fields in json.loads(encoded):
            one = Contribution(*fields)
            key = ScoreKey(tenant, course, assignment, one.item_id, one.criterion)
            self._sums[key] = plus(self._sums[key], of_contribution(one, times))

    async def apply(self, driver: Driver) -> None:
        """Changes the sums."""
        change = sorted((key, sums) for key, sums in self._sums.items() if sums != NOTHING)
        if not change:
            return
        keys = list(zip(*(key for key, _ in change), strict=True))
        await driver.fetchval(
            _ADD,
            *keys,
            [sums.number for _, sums in change],
            [Decimal(sums.total) for _, sums in change],
            [Decimal(sums.squares) for _, sums in change],
            [part for _, sums in change for part in sums.histogram],
        )
        await driver.fetchval(_DROP_EMPTY, *keys)


async def _follow(driver: Driver, rows: Sequence[AuditRow]) -> None:
    await refresh(driver, (SubmissionKey(row.tenant, row.submission_id) for row in rows if row.submission_id))


count: Work = with_rows(_follow)
"""The work of the follower that counts; its step holds the lock. From the first event on, it counts
what was there before there were statistics."""


async def add_bucket(server: Server, bucket: Bucket) -> None:
    """Counts all submissions of a bucket, which this shard has now. May be repeated."""
    after: str | None = ""
    while after is not None:
        after = await _add_page(server, bucket, after)


async def _add_page(server: Server, bucket: Bucket, after: str) -> str | None:
    return await server.transact(lambda driver: _count_page(driver, bucket, after))


async def _count_page(driver: Driver, bucket: Bucket, after: str) -> str | None:
    await locked(driver)
    rows: list[Sequence[Any]] = await driver.fetch(_OF_BUCKET, _suffix(bucket), after, _BUCKET_PAGE)
    await refresh(driver, [SubmissionKey(row[0], row[1]) for row in rows])
    return rows[-1][1] if len(rows) == _BUCKET_PAGE else None


async def drop_bucket(server: Server, bucket: Bucket) -> None:
    """Takes all submissions of a bucket out of the sums: this shard has it no more. May be repeated.

    Their rows may still be here; nothing may count them again.
    """
    while await server.transact(lambda driver: _drop_page(driver, bucket)) == _BUCKET_PAGE:
        pass


async def _drop_page(driver: Driver, bucket: Bucket) -> int:
    await locked(driver)
    rows = await driver.fetch(_COUNTED_OF_BUCKET, _suffix(bucket), _BUCKET_PAGE)
    await forget(driver, [SubmissionKey(row[0], row[1]) for row in rows])
    return len(rows)


async def forget(driver: Driver, keys: Sequence[SubmissionKey]) -> None:
    """Takes these out of the sums, there or not. Inside of a transaction that is `locked`."""
    if not keys:
        return
    arrays = tuple(zip(*keys, strict=True))
    change = _Change()
    for _, tenant, course, assignment, encoded in await driver.fetch(_BEFORE, *arrays):
        change.add((tenant, course, assignment), encoded, -1)
    await driver.fetchval(_FORGET, *arrays)
    await change.apply(driver)


def _suffix(bucket: Bucket) -> str:
    return f"-{bucket:03x}"
