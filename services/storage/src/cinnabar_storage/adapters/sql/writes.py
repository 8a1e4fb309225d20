"""New submissions and outcomes of one shard: one statement each, its own transaction, without a BEGIN."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.records import (
    CommitResult,
    Created,
    CreateStatus,
    Doubt,
    GivenUp,
    Graded,
    Lsn,
    NewSubmission,
    Outcome,
)

# Null when everything was new, so that the usual answer is one null, not 500 ids.
_CREATE = """
WITH fresh AS (
    INSERT INTO submissions (submission_id, tenant, course, assignment, revision_id, author, request_id,
                             fingerprint, priority, answers, max_score, create_time, grade_after, grade_by,
                             task_count)
    SELECT submission_id, tenant, course, assignment, revision_id, author, request_id,
           fingerprint, priority, answers, max_score,
           timestamptz 'epoch' + create_time * interval '1 microsecond',
           timestamptz 'epoch' + grade_after * interval '1 microsecond',
           timestamptz 'epoch' + grade_by * interval '1 microsecond', task_count
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::bytea[], $9::int[], $10::bytea[], $11::float8[], $12::bigint[], $13::bigint[],
                $14::bigint[], $15::int[])
        AS given(submission_id, tenant, course, assignment, revision_id, author, request_id,
                 fingerprint, priority, answers, max_score, create_time, grade_after, grade_by, task_count)
    ON CONFLICT DO NOTHING
    RETURNING submission_id, tenant
), opened AS (
    INSERT INTO tasks (submission_id, item_id, tenant, queue, state, generation, fence)
    SELECT given.submission_id, given.item_id, fresh.tenant, given.queue, 1, 1, 0
    FROM unnest($16::text[], $17::text[], $18::text[]) AS given(submission_id, item_id, queue)
    JOIN fresh ON fresh.submission_id = given.submission_id
)
SELECT CASE WHEN count(*) = cardinality($1::text[]) THEN NULL
            ELSE coalesce(array_agg(submission_id), '{}') END
FROM fresh
"""
# Who holds the request id or the submission id of rows that were not inserted.
_HOLDERS = """
SELECT given.n, s.submission_id, true, s.fingerprint = given.fingerprint
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bytea[], $10::bytea[])
    AS given(n, submission_id, tenant, course, assignment, revision_id, author, request_id,
             fingerprint, answers)
CROSS JOIN LATERAL (
    SELECT * FROM submissions found
    WHERE found.tenant = given.tenant AND found.author = given.author AND found.request_id = given.request_id
    OFFSET 0
) AS s
UNION ALL
SELECT given.n, s.submission_id, false,
       (s.course, s.assignment, s.revision_id, s.author, s.fingerprint, s.answers)
           = (given.course, given.assignment, given.revision_id, given.author, given.fingerprint,
              given.answers)
FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::bytea[], $10::bytea[])
    AS given(n, submission_id, tenant, course, assignment, revision_id, author, request_id,
             fingerprint, answers)
CROSS JOIN LATERAL (
    SELECT * FROM submissions found
    WHERE found.submission_id = given.submission_id AND found.tenant = given.tenant OFFSET 0
) AS s
"""
# The delete is the fence: only the open task of this generation, written under
# no later lease, makes way for its grade, and it can do so once. Worker and lease
# are nobody's secret: a salt, which takes a fifth of the time, is for rows of people.
# `= ANY` says what the join says too, and makes it go by the index whatever the
# statistics are: of a table whose rows die young they are always old.
_CLAIMED = """
WITH claimed AS (
    DELETE FROM tasks t
    USING unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::text[],
                 $8::float8[], $9::bytea[])
        AS given(tenant, submission_id, item_id, generation, fence, lease_token, worker, score, grade)
    WHERE t.submission_id = given.submission_id AND t.item_id = given.item_id AND t.tenant = given.tenant
        AND t.submission_id = ANY($2)
        AND t.generation = given.generation AND t.state = 1 AND t.fence < given.fence
    RETURNING given.*, t.shadow, t.revision_id, t.regrade_id, t.queue
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, salt, detail)
    SELECT tenant, worker, CASE WHEN shadow THEN 'shadow-grade' ELSE 'grade' END, submission_id, item_id,
           generation, NULL, lease_token FROM claimed
)"""
_WHICH_CLAIMED = """
SELECT CASE WHEN count(*) = cardinality($1::text[]) THEN NULL
            ELSE coalesce(array_agg(submission_id || '/' || item_id), '{}') END
FROM claimed
"""
_GRADE = f"""{_CLAIMED}, graded AS (
    INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
                        kind, revision_id, regrade_id)
    SELECT submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
           CASE WHEN shadow THEN 3 ELSE 1 END, revision_id, regrade_id FROM claimed
)
{_WHICH_CLAIMED}"""
# The same for a grade that a person should look at, that a fallback made, or that may end such wishes: few,
# so that all others need not pay for more tables. A task can be older than the grade that counts; then its
# own grade changes nothing here.
_GRADE_WITH_WISHES = f"""{_CLAIMED}, doubted AS (
    SELECT claimed.*, doubts.max_score, doubts.upgradable,
           CASE WHEN doubts.flags IS NOT NULL
                THEN ARRAY(SELECT jsonb_array_elements_text(doubts.flags::jsonb)) END AS flags
    FROM claimed
    JOIN unnest($2::text[], $3::text[], $10::text[], $11::float8[], $12::boolean[])
        AS doubts(submission_id, item_id, flags, max_score, upgradable)
        ON doubts.submission_id = claimed.submission_id AND doubts.item_id = claimed.item_id
), graded AS (
    INSERT INTO grades (submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
                        kind, revision_id, regrade_id, flags, max_score)
    SELECT submission_id, item_id, generation, tenant, score, grade, lease_token, worker, fence,
           CASE WHEN shadow THEN 3 ELSE 1 END, revision_id, regrade_id, flags, max_score FROM doubted
), ended AS (
    DELETE FROM reviews r USING doubted d
    WHERE r.submission_id = ANY($2) AND r.submission_id = d.submission_id AND r.item_id = d.item_id
        AND r.tenant = d.tenant AND r.generation < d.generation AND NOT d.shadow AND d.flags IS NULL
), waiting AS (
    INSERT INTO reviews AS r (submission_id, item_id, tenant, course, assignment, generation, score,
                              max_score, flags)
    SELECT d.submission_id, d.item_id, d.tenant, s.course, s.assignment, d.generation, d.score,
           d.max_score, d.flags
    FROM doubted d JOIN submissions s ON s.submission_id = d.submission_id AND s.tenant = d.tenant
    WHERE NOT d.shadow AND d.flags IS NOT NULL AND s.submission_id = ANY($2)
        AND NOT EXISTS (
            SELECT FROM grades g
            WHERE g.submission_id = d.submission_id AND g.item_id = d.item_id AND g.tenant = d.tenant
                AND g.kind <> 3 AND g.generation > d.generation
        )
    ON CONFLICT (submission_id, item_id) DO UPDATE
    SET generation = excluded.generation, score = excluded.score, max_score = excluded.max_score,
        flags = excluded.flags, create_time = excluded.create_time
    WHERE r.generation < excluded.generation AND r.tenant = excluded.tenant
), replaced AS (
    DELETE FROM upgrades u USING doubted d
    WHERE u.submission_id = ANY($2) AND u.submission_id = d.submission_id AND u.item_id = d.item_id
        AND u.tenant = d.tenant AND u.generation < d.generation AND NOT d.shadow AND NOT d.upgradable
), upgradable AS (
    INSERT INTO upgrades AS u (submission_id, item_id, tenant, generation, queue, revision_id)
    SELECT submission_id, item_id, tenant, generation, queue, revision_id FROM doubted
    WHERE upgradable AND NOT shadow
    ON CONFLICT (submission_id, item_id) DO UPDATE
    SET generation = excluded.generation, queue = excluded.queue, revision_id = excluded.revision_id
    WHERE u.generation < excluded.generation AND u.tenant = excluded.tenant
)
{_WHICH_CLAIMED}"""
_GIVE_UP = """
WITH claimed AS (
    UPDATE tasks t
    SET state = 2, fence = given.fence, reason = given.reason, attempts = given.attempts, update_time = now()
    FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::text[],
                $8::text[], $9::int[])
        AS given(tenant, submission_id, item_id, generation, fence, lease_token, worker, reason, attempts)
    WHERE t.submission_id = given.submission_id AND t.item_id = given.item_id AND t.tenant = given.tenant
        AND t.submission_id = ANY($2)
        AND t.generation = given.generation AND t.state = 1 AND t.fence < given.fence
    RETURNING given.*
), audited AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT tenant, worker, 'dead-letter', submission_id, item_id, generation, reason FROM claimed
)
SELECT CASE WHEN count(*) = cardinality($1::text[]) THEN NULL
            ELSE coalesce(array_agg(submission_id || '/' || item_id), '{}') END
FROM claimed
"""
_GRADED = """
SELECT g.submission_id, g.item_id, g.generation
FROM unnest($1::text[], $2::text[], $3::text[], $4::int[]) AS k(tenant, submission_id, item_id, generation)
CROSS JOIN LATERAL (
    SELECT * FROM grades found
    WHERE found.submission_id = k.submission_id AND found.item_id = k.item_id
        AND found.generation = k.generation AND found.tenant = k.tenant
    OFFSET 0
) AS g
"""


async def create_submissions(server: Server, rows: Sequence[NewSubmission]) -> tuple[list[Created], Lsn]:
    """See ports.Shard; of rows that refer to no uploads."""
    results, create = creation(server, rows)

    async def work(driver: Driver) -> Lsn:
        await create(driver)
        return await flushed(driver)

    return results, await server.run(work)


def creation(
    server: Server, rows: Sequence[NewSubmission]
) -> tuple[list[Created], Callable[[Driver], Awaitable[None]]]:
    """What creates the rows, and the results, which are true once it has run. It may run again."""
    first, again = _first_of_each(rows)
    columns = _columns([rows[index] for index in first])
    created = CreateStatus.CREATED
    results = [Created(created, row.submission_id) for row in rows]

    # None until the statement has answered: work that is repeated after that
    # must not take its own rows for those of somebody else.
    known: list[int] | None = None

    async def create(driver: Driver) -> None:
        nonlocal known
        if known is None:
            fresh: list[str] | None = await driver.fetchval(_CREATE, *columns) if first else None
            stored = None if fresh is None else set(fresh)
            known = again + [
                index for index in first if stored is not None and rows[index].submission_id not in stored
            ]
        if known:
            holders = await driver.fetch(_HOLDERS, *_lookup(rows, known))
            await server.require(driver)
            _settle(rows, known, holders, results)

    return results, create


def _columns(rows: Sequence[NewSubmission]) -> list[Sequence[Any]]:
    """The arguments of _CREATE."""
    if not rows:
        return []
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
    ids: list[str] = []
    items: list[str] = []
    queues: list[str] = []
    for submission_id, tasks in zip(columns[0], columns[12], strict=True):
        for item_id, queue in tasks:
            ids.append(submission_id)
            items.append(item_id)
            queues.append(queue)
    task_counts = list(map(len, columns[12]))
    return [*columns[:12], *columns[13:15], task_counts, ids, items, queues]


def _first_of_each(rows: Sequence[NewSubmission]) -> tuple[list[int], list[int]]:
    """Indexes of the rows to insert, and of those to look up only.

    The latter have an id or a request id that came earlier in the batch, or are
    there to look for it.

    The first are in the order of their request ids, so that two batches with
    the same requests meet in the same order and do not deadlock.
    """
    first: list[int] = []
    again: list[int] = []
    ids: set[str] = set()
    requests: dict[tuple[str, str, str], int] = {}
    for index, row in enumerate(rows):
        request = None if row.request_id is None else (row.tenant, row.author, row.request_id)
        if row.existing_only or row.submission_id in ids or (request is not None and request in requests):
            again.append(index)
            continue
        ids.add(row.submission_id)
        first.append(index)
        if request is not None:
            requests[request] = index
    if requests:
        ordered = [requests[request] for request in sorted(requests)]
        first = ordered + [index for index in first if rows[index].request_id is None]
    return first, again


def _lookup(rows: Sequence[NewSubmission], known: list[int]) -> list[Sequence[Any]]:
    asked = [rows[index] for index in known]
    return [
        known,
        [row.submission_id for row in asked],
        [row.tenant for row in asked],
        [row.course for row in asked],
        [row.assignment for row in asked],
        [row.revision_id for row in asked],
        [row.author for row in asked],
        [row.request_id for row in asked],
        [row.fingerprint for row in asked],
        [row.answers for row in asked],
    ]


def _settle(
    rows: Sequence[NewSubmission],
    known: list[int],
    holders: list[Sequence[Any]],
    results: list[Created],
) -> None:
    by_id = {holder[0]: holder for holder in holders if not holder[2]}
    by_request = {holder[0]: holder for holder in holders if holder[2]}
    for index in known:
        if rows[index].existing_only:
            holder = by_request.get(index)
            if holder is None:
                results[index] = Created(CreateStatus.ABSENT, rows[index].submission_id)
                continue
        else:
            holder = by_request.get(index) or by_id.get(index)
        if holder is None:  # the id is another tenant's, of whom nothing may be told
            results[index] = Created(CreateStatus.CONFLICT, rows[index].submission_id)
        else:
            status = CreateStatus.DUPLICATE if holder[3] else CreateStatus.CONFLICT
            results[index] = Created(status, holder[1])


async def commit_outcomes(server: Server, outcomes: Sequence[Outcome]) -> tuple[list[CommitResult], Lsn]:
    """See ports.Shard."""
    results = [CommitResult.COMMITTED] * len(outcomes)
    # What is done is taken off: work that is repeated must go on, not begin again.
    steps: deque[tuple[str, list[int]]] = deque()
    for turn in _turns(outcomes):
        by_statement: dict[str, list[int]] = {}
        for index in turn:
            by_statement.setdefault(_statement(outcomes[index]), []).append(index)
        steps.extend(by_statement.items())
    refused: list[int] = []

    async def work(driver: Driver) -> Lsn:
        while steps:
            refused.extend(await _claim(driver, steps[0][0], outcomes, steps[0][1]))
            steps.popleft()
        if refused:
            await _classify(driver, outcomes, refused, results)
            await server.require(driver)
        return await flushed(driver)

    return results, await server.run(work)


def _turns(outcomes: Sequence[Outcome]) -> list[list[int]]:
    """Indexes in turns, no task twice in one, ordered by task so that concurrent batches do not deadlock."""
    seen: dict[tuple[str, str], int] = {}
    turns: list[list[int]] = []
    for index, outcome in enumerate(outcomes):
        key = (outcome.submission_id, outcome.item_id)
        turn = seen.get(key, 0)
        seen[key] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(index)
    for turn in turns:
        turn.sort(key=lambda index: outcomes[index][1:3])
    return turns


def _statement(outcome: Outcome) -> str:
    if isinstance(outcome, GivenUp):
        return _GIVE_UP
    # Only a grade that comes again can end a wish.
    plain = outcome.doubt is None and not outcome.upgradable and outcome.generation == 1
    return _GRADE if plain else _GRADE_WITH_WISHES


def _arguments(outcomes: Sequence[Outcome]) -> list[Sequence[Any]]:
    """Of one of the fenced statements, for outcomes of its kind."""
    columns: list[Sequence[Any]] = list(zip(*outcomes, strict=True))
    if not isinstance(outcomes[0], Graded):
        return columns
    upgradable = columns.pop()
    doubts: Sequence[Doubt | None] = columns.pop()
    if _statement(outcomes[0]) is _GRADE:
        return columns
    flags = [None if doubt is None else json.dumps(doubt.flags) for doubt in doubts]
    points = [None if doubt is None else doubt.max_score for doubt in doubts]
    return [*columns, flags, points, upgradable]


async def _claim(
    driver: Driver, statement: str, outcomes: Sequence[Outcome], indexes: list[int]
) -> list[int]:
    """Runs one of the fenced statements; returns the indexes that it refused."""
    columns = _arguments([outcomes[index] for index in indexes])
    claimed: list[str] | None = await driver.fetchval(statement, *columns)
    if claimed is None:
        return []
    done = set(claimed)
    return [
        index for index in indexes if f"{outcomes[index].submission_id}/{outcomes[index].item_id}" not in done
    ]


async def _classify(
    driver: Driver, outcomes: Sequence[Outcome], refused: list[int], results: list[CommitResult]
) -> None:
    keys = [outcomes[index][:4] for index in refused]
    rows = await driver.fetch(_GRADED, *zip(*keys, strict=True))
    graded = {(row[0], row[1], row[2]) for row in rows}
    for index, key in zip(refused, keys, strict=True):
        results[index] = CommitResult.ALREADY_GRADED if key[1:4] in graded else CommitResult.SUPERSEDED
