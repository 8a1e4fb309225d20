"""Reads of one server, primary or replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from cinnabar_storage.adapters.sql import reviews as sql_reviews
from cinnabar_storage.adapters.sql import waiting_reviews as sql_waiting_reviews
from cinnabar_storage.adapters.sql.held import held, held_args
from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.adapters.sql.times import micros, micros_if
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import (
    Assignment,
    AssignmentKey,
    AssignmentPage,
    AssignmentQuery,
    DeadLetter,
    DeadLetterPage,
    DeadLetterQuery,
    Grade,
    GradeKind,
    Lsn,
    OpenTask,
    OwnedTaskKey,
    QueueControl,
    RevisionKey,
    RevisionQuery,
    Submission,
    SubmissionKey,
    SubmissionQuery,
    SubmissionRow,
    Task,
    TaskCounts,
    TaskKey,
)
from cinnabar_storage.regrading.records import Comparison, RegradeKey
from cinnabar_storage.reviewing.records import GradingQuery, Gradings
from cinnabar_storage.reviewing.waiting_records import ReviewQuery, WaitingReview
from cinnabar_storage.shards.bucket_map import BucketSet
from cinnabar_storage.trail.audit import AuditEvent, AuditQuery

T = TypeVar("T")


# What is asked for by key is looked up key by key: OFFSET 0 leaves the planner no other way. Its
# statistics are old whenever a table has just grown, and the scan that they recommend reads all of it.
# Without answers where there is no room. Sizes are known without reading what is large.
_SUBMISSIONS = """
SELECT submission_id, tenant, course, assignment, revision_id, author, priority,
       CASE WHEN bytes <= $3::bigint OR number = 1 THEN answers END,
       max_score, create_time, grade_after, grade_by
FROM (
    SELECT s.*, row_number() OVER given AS number,
           sum(octet_length(s.answers) + coalesce((
               SELECT sum(octet_length(g.grade)) FROM grades g
               WHERE g.submission_id = s.submission_id AND g.tenant = s.tenant
           ), 0)) OVER (given ROWS UNBOUNDED PRECEDING) AS bytes
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k(tenant, submission_id, n)
    CROSS JOIN LATERAL (
        SELECT * FROM submissions found
        WHERE found.submission_id = k.submission_id AND found.tenant = k.tenant OFFSET 0
    ) AS s
    WINDOW given AS (ORDER BY k.n)
) AS sized
ORDER BY number
"""
_TASKS = """
SELECT t.submission_id, t.item_id, t.queue, t.generation, t.state, t.reason, t.attempts, t.update_time,
       coalesce(t.regrade_id, ''), t.shadow
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
CROSS JOIN LATERAL (
    SELECT * FROM tasks found
    WHERE found.submission_id = k.submission_id AND found.tenant = k.tenant AND NOT found.shadow OFFSET 0
) AS t
"""
_GRADES = """
SELECT g.submission_id, g.item_id, g.generation, g.score, g.grade, g.create_time,
       g.kind, coalesce(g.revision_id, ''), coalesce(g.regrade_id, '')
FROM unnest($1::text[], $2::text[]) AS k(tenant, submission_id)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (found.item_id) * FROM grades found
    WHERE found.submission_id = k.submission_id AND found.tenant = k.tenant AND found.kind <> 3
    ORDER BY found.item_id, found.generation DESC
) AS g
"""
_IDS = f"""
SELECT submission_id FROM submissions
WHERE tenant = $1 AND course = $2 AND assignment = $3 AND ($4 = '' OR submission_id < $4)
    AND {held("submission_id", "$6", "$7")}
ORDER BY submission_id DESC LIMIT $5
"""
# All of the author's, and then those of the assignment: never the other way round.
_IDS_OF_AUTHOR = """
SELECT submission_id FROM (
    SELECT submission_id, course, assignment FROM submissions WHERE tenant = $1 AND author = $6 OFFSET 0
) AS own
WHERE course = $2 AND assignment = $3 AND ($4 = '' OR submission_id < $4)
ORDER BY submission_id DESC LIMIT $5
"""
_ASSIGNMENTS = """
SELECT r.tenant, r.course, r.assignment, r.revision_id, r.spec, a.create_time, r.create_time
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS k(tenant, course, assignment, revision_id)
JOIN assignments a ON a.tenant = k.tenant AND a.course = k.course AND a.assignment = k.assignment
JOIN assignment_revisions r ON r.tenant = a.tenant AND r.course = a.course AND r.assignment = a.assignment
    AND r.revision_id = coalesce(nullif(k.revision_id, ''), a.revision_id)
"""
_REVISIONS = """
SELECT r.tenant, r.course, r.assignment, r.revision_id, r.spec, a.create_time, r.create_time
FROM unnest($1::text[], $2::text[]) AS k(tenant, revision_id)
JOIN assignment_revisions r ON r.tenant = k.tenant AND r.revision_id = k.revision_id
JOIN assignments a ON a.tenant = r.tenant AND a.course = r.course AND a.assignment = r.assignment
"""
# Pages of bounded size: the first that there is no room for comes too, without
# what is large, and tells that there are more.
_ASSIGNMENTS_OF_COURSE = """
SELECT tenant, course, assignment, revision_id,
       CASE WHEN number = 1 OR bytes_before + octet_length(spec) <= $5 THEN spec END,
       create_time, update_time
FROM (
    SELECT page.*, row_number() OVER given AS number,
           sum(octet_length(spec)) OVER (given ROWS UNBOUNDED PRECEDING) - octet_length(spec) AS bytes_before
    FROM (
        SELECT r.tenant, r.course, r.assignment, r.revision_id, r.spec,
               a.create_time, r.create_time AS update_time
        FROM assignments a
        JOIN assignment_revisions r ON r.tenant = a.tenant AND r.revision_id = a.revision_id
        WHERE a.tenant = $1 AND a.course = $2 AND a.assignment > $3
        ORDER BY a.assignment LIMIT $4::bigint + 1
    ) AS page
    WINDOW given AS (ORDER BY assignment)
) AS sized
WHERE bytes_before <= $5::bigint OR number = 2
ORDER BY assignment
"""
_REVISION_IDS = """
SELECT revision_id FROM assignment_revisions
WHERE tenant = $1 AND course = $2 AND assignment = $3 AND ($4 = '' OR revision_id < $4)
ORDER BY revision_id DESC LIMIT $5
"""
# The one read over all tenants: recovery rebuilds the queues of everybody.
_OPEN_TASKS = f"""
SELECT submission_id, item_id, tenant, queue, generation, priority, revision_id,
       CASE WHEN number = 1 OR bytes_before + octet_length(answers) <= $4 THEN answers END,
       create_time, grade_after, grade_by, upgrade
FROM (
    SELECT page.*, row_number() OVER given AS number,
           sum(octet_length(answers)) OVER (given ROWS UNBOUNDED PRECEDING)
               - octet_length(answers) AS bytes_before
    FROM (
        SELECT t.submission_id, t.item_id, t.tenant, t.queue, t.generation,
               coalesce(t.priority, s.priority) AS priority,
               coalesce(t.revision_id, s.revision_id) AS revision_id,
               s.answers, s.create_time, s.grade_after,
               CASE WHEN t.deadline_lifted THEN NULL ELSE s.grade_by END AS grade_by, t.upgrade
        FROM tasks t JOIN submissions s ON s.submission_id = t.submission_id AND s.tenant = t.tenant
        WHERE t.state = 1 AND (t.submission_id, t.item_id) > ($1, $2)
            AND {held("t.submission_id", "$5", "$6")}
        ORDER BY t.submission_id, t.item_id LIMIT $3::bigint + 1
    ) AS page
    WINDOW given AS (ORDER BY submission_id, item_id)
) AS sized
WHERE bytes_before <= $4::bigint OR number = 2
ORDER BY submission_id, item_id
"""
_DEAD_LETTERS = f"""
SELECT submission_id, item_id, queue, generation, state,
       CASE WHEN number = 1 OR bytes_before + octet_length(reason) <= $11 THEN reason END,
       attempts, update_time, regrade_id, shadow, course, assignment
FROM (
    SELECT page.*, row_number() OVER given AS number,
           sum(octet_length(reason)) OVER (given ROWS UNBOUNDED PRECEDING)
               - octet_length(reason) AS bytes_before
    FROM (
        SELECT t.submission_id, t.item_id, t.queue, t.generation, t.state, t.reason, t.attempts,
               t.update_time, coalesce(t.regrade_id, '') AS regrade_id, t.shadow, s.course, s.assignment
        FROM tasks t JOIN submissions s ON s.submission_id = t.submission_id AND s.tenant = t.tenant
        WHERE t.state = 2 AND t.tenant = $1 AND ($2 = '' OR t.queue = $2)
            AND (t.submission_id, t.item_id) > ($3, $4)
            AND ($6 = '' OR s.course = $6) AND ($7 = '' OR s.assignment = $7)
            AND ($8 = '' OR strpos(t.reason, $8) > 0)
            AND ($9::bigint IS NULL OR t.update_time >= timestamptz 'epoch' + $9 * interval '1 microsecond')
            AND ($10::bigint IS NULL OR t.update_time < timestamptz 'epoch' + $10 * interval '1 microsecond')
            AND {held("t.submission_id", "$12", "$13")}
        ORDER BY t.submission_id, t.item_id LIMIT $5::bigint + 1
    ) AS page
    WINDOW given AS (ORDER BY submission_id, item_id)
) AS sized
WHERE bytes_before <= $11::bigint OR number = 2
ORDER BY submission_id, item_id
"""
_OPEN_GENERATIONS = """
SELECT array_agg(coalesce(t.generation, 0) ORDER BY k.n)
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k(tenant, submission_id, item_id, n)
LEFT JOIN LATERAL (
    SELECT generation FROM tasks found
    WHERE found.submission_id = k.submission_id AND found.item_id = k.item_id AND found.tenant = k.tenant
        AND found.state = 1
    OFFSET 0
) AS t ON true
"""
_QUEUE_CONTROLS = "SELECT queue, state, actor FROM queue_controls ORDER BY queue"
# One statement, so one snapshot: it adds up whatever is committed meanwhile. A
# submission without a count was written by a release that did not know the
# column: its tasks are rows of tasks or, once graded, rows of grades. What has a
# later generation is a regrade, accepted after the submission, unless a person
# gave it or promoted it: that is a grade beside the tasks, and a regrade that a
# person forestalls is as if it had never been.
_COUNT_TASKS = f"""
SELECT accepted.tasks + open.regrades + graded.regrades - apart.grades,
       open.open, open.dead_lettered, open.cancelled, graded.tasks - apart.grades
FROM (
    SELECT coalesce(sum(coalesce(s.task_count,
        (SELECT count(*) FROM tasks t
         WHERE t.submission_id = s.submission_id AND t.tenant = s.tenant AND t.generation = 1)
        + (SELECT count(*) FROM grades g
           WHERE g.submission_id = s.submission_id AND g.tenant = s.tenant AND g.generation = 1)
    )), 0)::bigint AS tasks
    FROM submissions s WHERE {held("s.submission_id", "$1", "$2")}
) AS accepted, (
    SELECT count(*) FILTER (WHERE state = 1) AS open,
           count(*) FILTER (WHERE state = 2) AS dead_lettered,
           count(*) FILTER (WHERE state = 3) AS cancelled,
           count(*) FILTER (WHERE generation > 1) AS regrades
    FROM tasks WHERE {held("submission_id", "$1", "$2")}
) AS open, (
    SELECT count(*) AS tasks, count(*) FILTER (WHERE generation > 1) AS regrades
    FROM grades WHERE {held("submission_id", "$1", "$2")}
) AS graded, (
    SELECT count(*) AS grades FROM grades
    WHERE generation > 1 AND kind IN (2, 4) AND {held("submission_id", "$1", "$2")}
) AS apart
"""


# A grade of a regrade beside the one that counted when its task was opened: the
# last before it. Generations tell, for each is above all there were.
_COMPARISONS = f"""
SELECT n.submission_id, n.item_id, (
    SELECT o.grade FROM grades o
    WHERE o.submission_id = n.submission_id AND o.item_id = n.item_id AND o.tenant = $1
        AND o.kind <> 3 AND o.generation < n.generation
    ORDER BY o.generation DESC LIMIT 1
), n.grade
FROM grades n
WHERE n.tenant = $1 AND n.regrade_id = $2 AND n.kind = $3 AND (n.submission_id, n.item_id) > ($4, $5)
    AND {held("n.submission_id", "$7", "$8")}
ORDER BY n.submission_id, n.item_id LIMIT $6
"""


def _columns(rows: Sequence[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
    return zip(*rows, strict=True)


def _given(rows: list[Sequence[Any]], limit: int, large: int) -> list[Sequence[Any]]:
    """The rows of a page, without the one after it: it is over the limit, or lacks its column ``large``."""
    return rows[:-1] if rows and (len(rows) > limit or rows[-1][large] is None) else rows


class SqlCopy:
    """Implements ports.Copy on one server; ``authoritative`` when it is the primary.

    Every read goes through `_run`, which sees to it that the buckets of the
    server are owned there, and with ``fenced`` false that none is fenced.
    """

    def __init__(
        self, server: Server, *, authoritative: bool, shows: Callable[[], Lsn], fenced: bool = True
    ) -> None:
        self._server = server
        self._authoritative = authoritative
        self._shows = shows
        self._fenced = fenced

    @property
    def authoritative(self) -> bool:
        return self._authoritative

    @property
    def shows(self) -> Lsn:
        return self._shows()

    @property
    def buckets(self) -> BucketSet:
        return self._server.buckets

    async def _run(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        return await self._server.read(work, fenced=self._fenced)

    async def _fetch(self, query: str, *args: object) -> list[Sequence[Any]]:
        return await self._run(lambda driver: driver.fetch(query, *args))

    async def submissions(
        self, keys: Sequence[SubmissionKey], *, max_bytes: int
    ) -> tuple[list[Submission], list[SubmissionKey]]:
        if not keys:
            return [], []
        arrays = tuple(_columns(keys))

        async def work(driver: Driver) -> tuple[list[Sequence[Any]], ...]:
            # Tasks before grades: what is graded in between then shows as both,
            # and the grade wins below. The other way round it would be neither.
            rows = await driver.fetch(_SUBMISSIONS, *arrays, max_bytes)
            if not rows:
                return [], [], []
            here = tuple(_columns([(row[1], row[0]) for row in rows if row[7] is not None]))
            tasks = await driver.fetch(_TASKS, *here)
            return rows, tasks, await driver.fetch(_GRADES, *here)

        rows, tasks, grades = await self._run(work)
        found: dict[str, Submission] = {}
        left_out: list[SubmissionKey] = []
        for row in rows:
            if row[7] is None:
                left_out.append(SubmissionKey(row[1], row[0]))
            else:
                found[row[0]] = Submission(_submission_row(row), [], [])
        generations: dict[tuple[str, str], int] = {}
        for row in grades:
            generations[row[0], row[1]] = row[2]
            if row[0] in found:
                found[row[0]].grades.append(Grade._make((*row[:5], micros(row[5]), *row[6:], "", "")))
        for row in tasks:
            if row[0] in found and generations.get((row[0], row[1]), 0) < row[3]:
                found[row[0]].tasks.append(_task(row))
        return list(found.values()), left_out

    async def submission_ids(self, query: SubmissionQuery) -> list[str]:
        args = (query.tenant, query.course, query.assignment, query.before, query.limit)
        if query.author:
            rows = await self._fetch(_IDS_OF_AUTHOR, *args, query.author)
        else:
            rows = await self._fetch(_IDS, *args, *held_args(self.buckets))
        return [row[0] for row in rows]

    async def assignments(self, keys: Sequence[AssignmentKey]) -> list[Assignment]:
        if not keys:
            return []
        return _assignments(await self._fetch(_ASSIGNMENTS, *_columns(keys)))

    async def revisions(self, keys: Sequence[RevisionKey]) -> list[Assignment]:
        if not keys:
            return []
        return _assignments(await self._fetch(_REVISIONS, *_columns(keys)))

    async def assignments_of_course(self, query: AssignmentQuery) -> AssignmentPage:
        rows = await self._fetch(_ASSIGNMENTS_OF_COURSE, *query, MAX_PAGE_BYTES)
        page = _given(rows, query.limit, 4)
        return AssignmentPage(_assignments(page), len(page) < len(rows))

    async def revision_ids(self, query: RevisionQuery) -> list[str]:
        return [row[0] for row in await self._fetch(_REVISION_IDS, *query)]

    async def open_tasks(self, after: TaskKey, limit: int) -> tuple[list[OpenTask], bool]:
        rows = await self._fetch(_OPEN_TASKS, *after, limit, MAX_PAGE_BYTES, *held_args(self.buckets))
        page = _given(rows, limit, 7)
        return list(map(open_task, page)), len(page) < len(rows)

    async def dead_letters(self, query: DeadLetterQuery, *, max_bytes: int) -> DeadLetterPage:
        rows = await self._fetch(
            *(_DEAD_LETTERS, query.tenant, query.queue, *query.after, query.limit),
            *(query.course, query.assignment, query.reason, query.given_up_after, query.given_up_before),
            *(max_bytes, *held_args(self.buckets)),
        )
        page = _given(rows, query.limit, 5)
        letters = [DeadLetter(_task(row), row[10], row[11]) for row in page]
        return DeadLetterPage(letters, len(page) < len(rows))

    async def open_generations(self, keys: Sequence[OwnedTaskKey]) -> list[int]:
        if not keys:
            return []
        arrays = tuple(_columns(keys))
        return await self._run(lambda driver: driver.fetchval(_OPEN_GENERATIONS, *arrays))

    async def gradings(self, query: GradingQuery) -> Gradings:
        return await sql_reviews.gradings(self._server, query)

    async def audit_events(self, query: AuditQuery) -> list[AuditEvent]:
        return await sql_reviews.audit_events(self._server, query)

    async def waiting_reviews(self, query: ReviewQuery) -> list[WaitingReview]:
        return await sql_waiting_reviews.waiting_reviews(self._server, query)

    async def queue_controls(self) -> list[QueueControl]:
        return [QueueControl._make(row) for row in await self._fetch(_QUEUE_CONTROLS)]

    async def comparisons(
        self, key: RegradeKey, kind: GradeKind, after: TaskKey, limit: int
    ) -> list[Comparison]:
        args = (*key, kind, *after, limit, *held_args(self.buckets))
        rows = await self._fetch(_COMPARISONS, *args)
        return [Comparison._make(row) for row in rows]


async def count_tasks(server: Server) -> TaskCounts:
    """See ports.Shard."""
    [row] = await server.read(lambda driver: driver.fetch(_COUNT_TASKS, *held_args(server.buckets)))
    return TaskCounts._make(row)


def _submission_row(row: Sequence[Any]) -> SubmissionRow:
    return SubmissionRow._make((*row[:9], micros(row[9]), micros_if(row[10]), micros_if(row[11])))


def _task(row: Sequence[Any]) -> Task:
    return Task._make((*row[:7], micros(row[7]), *row[8:10]))


def tasks_of(rows: Iterable[Sequence[Any]]) -> list[Task]:
    """Rows with the columns of Task, in its order."""
    return [_task(row) for row in rows]


def open_task(row: Sequence[Any]) -> OpenTask:
    """A row that begins with the columns of OpenTask, in its order."""
    return OpenTask._make((*row[:8], micros(row[8]), micros_if(row[9]), micros_if(row[10]), row[11]))


def _assignments(rows: Iterable[Sequence[Any]]) -> list[Assignment]:
    return [Assignment._make((*row[:5], micros(row[5]), micros(row[6]))) for row in rows]
