"""What Postgres says became of everything, and whether that is what clients were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cinnabar_local import sql
from cinnabar_local.table import ShardAddress
from tests.support.chaos_ledger import Ledger, Request

OPEN, DEAD, CANCELLED = 1, 2, 3  # tasks.state
_PROBLEMS_SHOWN = 20
_AUDITED = ("grade", "cancel", "dead-letter")
# Seconds by which the clocks of two servers on one machine may differ.
_CLOCKS = 0.05


@dataclass(frozen=True, slots=True)
class SubmissionRow:
    """A submission; ``at`` is when it may be graded, from its acceptance on, in seconds since the epoch."""

    name: str
    request: Request
    at: float


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task without a grade."""

    name: str
    item: str
    state: int
    reason: str
    attempts: int
    at: float


@dataclass(frozen=True, slots=True)
class GradeRow:
    """A grade."""

    name: str
    item: str
    generation: int
    score: float
    at: float


@dataclass(frozen=True, slots=True)
class Account:
    """Every row of every shard. ``audit`` has (action, submission, item, generation)."""

    submissions: Sequence[SubmissionRow]
    tasks: Sequence[TaskRow]
    grades: Sequence[GradeRow]
    audit: Counter[tuple[str, str, str, int]]

    def in_state(self, state: int) -> list[TaskRow]:
        """Tasks in a state."""
        return [task for task in self.tasks if task.state == state]


_SUBMISSIONS = """
SELECT 'courses/' || course || '/assignments/' || assignment || '/submissions/' || submission_id,
       tenant, author, coalesce(request_id, ''),
       extract(epoch FROM greatest(create_time, grade_after))::float8
FROM submissions
"""
_TASKS = """
SELECT submission_id, item_id, state, reason, attempts, extract(epoch FROM update_time)::float8 FROM tasks
"""
_GRADES = """
SELECT submission_id, item_id, generation, score, extract(epoch FROM create_time)::float8 FROM grades
"""
_AUDIT = "SELECT action, submission_id, item_id, generation FROM audit"
_OPEN_SINCE = """
SELECT count(*) FROM tasks t JOIN submissions s USING (submission_id)
WHERE t.state = 1 AND s.create_time < to_timestamp($1)
"""


async def open_since(shards: Iterable[ShardAddress], at: float) -> int:
    """Open tasks of submissions that were accepted before ``at`` (epoch seconds). Raises sql.Unreachable."""
    found = 0
    for shard in shards:
        async with sql.connected(shard.primary_url) as connection:
            found += int(str(await connection.fetchval(_OPEN_SINCE, at)))
    return found


async def account(shards: Iterable[ShardAddress]) -> Account:
    """Reads everything from the primaries. Raises sql.Unreachable."""
    submissions: list[SubmissionRow] = []
    tasks: list[TaskRow] = []
    grades: list[GradeRow] = []
    audit: Counter[tuple[str, str, str, int]] = Counter()
    for shard in shards:
        async with sql.connected(shard.primary_url, timeout=60.0) as connection:
            submissions += [
                SubmissionRow(name, Request(tenant, author, request_id), at)
                for name, tenant, author, request_id, at in await connection.fetch(_SUBMISSIONS)
            ]
            tasks += [TaskRow(*row) for row in await connection.fetch(_TASKS)]
            grades += [GradeRow(*row) for row in await connection.fetch(_GRADES)]
            audit.update((a, s, i, g) for a, s, i, g in await connection.fetch(_AUDIT))
    return Account(submissions, tasks, grades, audit)


def problems(ledger: Ledger, found: Account, *, items: Sequence[str]) -> list[str]:
    """Everything in which the rows differ from what clients were told; empty when all is right.

    Each accepted submission is there once, and each of its ``items`` has one grade of generation 1, not
    before its time, or is cancelled or, past a deadline of its own, a dead letter, with the audit row of
    what was done to it.
    """
    result: list[str] = []

    def check(what: str, wrong: Iterable[object]) -> None:
        cases = [str(case) for case in wrong]
        if cases:
            shown = ", ".join(sorted(cases)[:_PROBLEMS_SHOWN])
            result.append(f"{what} ({len(cases)}): {shown}")

    stored = {row.name: row.request for row in found.submissions}
    check("acknowledged and not stored", ledger.names - set(stored))
    check("stored and never acknowledged", set(stored) - ledger.names)
    check("twice for one request", _repeated(row.request for row in found.submissions))
    told = {name: request for request, name in ledger.accepted.items()}
    check("stored under another request", (n for n, request in stored.items() if told.get(n) != request))

    graded = Counter((row.name, row.item) for row in found.grades)
    ended = Counter((row.name, row.item) for row in found.tasks)
    everything = {(name.rpartition("/")[2], item) for name in stored for item in items}
    check("graded more than once", (task for task, count in graded.items() if count > 1))
    check("of another generation", (row for row in found.grades if row.generation != 1))
    check("graded and still a task", graded.keys() & ended.keys())
    check("neither graded nor a task", everything - graded.keys() - ended.keys())
    check("of no submission", (graded.keys() | ended.keys()) - everything)
    starts = {row.name.rpartition("/")[2]: row.at for row in found.submissions}
    check("graded before its time", (r for r in found.grades if r.at < starts.get(r.name, 0.0) - _CLOCKS))
    check("still open", ((row.name, row.item) for row in found.in_state(OPEN)))

    scores: Counter[str] = Counter()
    for row in found.grades:
        scores[row.name] += row.score  # pyright: ignore[reportArgumentType]  # a Counter adds floats too
    unfinished = {row.name for row in found.tasks}
    check(
        "graded with another score",
        (
            f"{name}: {scores[key]} for {score}"
            for name, score in ledger.scores.items()
            if (key := name.rpartition("/")[2]) not in unfinished and scores[key] != score
        ),
    )
    cancelled = {row.name for row in found.in_state(CANCELLED)}
    promised = {name.rpartition("/")[2] for name in ledger.cancelled}
    check("cancelled and nobody asked", cancelled - promised)
    check("cancellation acknowledged and not done", promised - cancelled)
    given_up = {row.name for row in found.in_state(DEAD)}
    deadlines = {name.rpartition("/")[2] for name in ledger.deadlines}
    check("given up", (row for row in found.in_state(DEAD) if row.name not in deadlines))
    for name, (state, score) in ledger.seen_final.items():
        key = name.rpartition("/")[2]
        right = {
            "GRADED": key not in unfinished,
            "CANCELLED": key in cancelled,
            "FAILED": key in given_up,
        }.get(state, False)
        check(
            "watched to another end", [] if right and score == scores[key] else [f"{name}: {state} {score}"]
        )

    done = Counter(("grade", row.name, row.item, row.generation) for row in found.grades)
    done.update(("cancel", row.name, row.item, 1) for row in found.in_state(CANCELLED))
    done.update(("dead-letter", row.name, row.item, 1) for row in found.in_state(DEAD))
    audited = Counter({key: n for key, n in found.audit.items() if key[0] in _AUDITED})
    check("done and not audited", (done - audited).elements())
    check("audited and not done", (audited - done).elements())
    return result


def _repeated(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def longest_stall(found: Account) -> float:
    """The longest time in seconds in which nothing was graded while some task was open."""
    accepted = {row.name.rpartition("/")[2]: row.at for row in found.submissions}
    opened = [accepted[row.name] for row in (*found.grades, *found.tasks) if row.name in accepted]
    graded = [row.at for row in found.grades]
    ended = [row.at for row in found.tasks if row.state != OPEN]
    # Opened before graded, where both are at one time.
    events = sorted([(at, 0) for at in opened] + [(at, 1) for at in graded] + [(at, 2) for at in ended])
    waiting, since, longest = 0, 0.0, 0.0
    for at, what in events:
        if waiting:
            longest = max(longest, at - since)
        if what == 1 or not waiting:
            since = at
        waiting += 1 if what == 0 else -1
    return longest


def longest_wait(found: Account) -> float:
    """The longest time in seconds from the acceptance of a submission to the grade of one of its items."""
    accepted = {row.name.rpartition("/")[2]: row.at for row in found.submissions}
    return max((row.at - accepted[row.name] for row in found.grades if row.name in accepted), default=0.0)
