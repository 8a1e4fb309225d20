"""Regrades on Postgres: their rows, and the part that a shard has in each.

A step locks the part, then the submissions that it is about, in their order: so
steps take turns, and so do a step and whatever people do to a submission.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cinnabar_common.errors import EtagMismatch, ResourceNotFound, StateForbids
from cinnabar_storage.adapters.sql import regrade_statements as statements
from cinnabar_storage.adapters.sql.held import held_args
from cinnabar_storage.adapters.sql.reads import open_task
from cinnabar_storage.adapters.sql.reviews import CURRENT_GENERATIONS, LOCK_TASKS
from cinnabar_storage.adapters.sql.server import Driver, Server, flushed
from cinnabar_storage.adapters.sql.times import micros
from cinnabar_storage.etags import etag_from
from cinnabar_storage.ports import MAX_PAGE_BYTES
from cinnabar_storage.records import Lsn, Micros, OpenTask
from cinnabar_storage.regrading.candidates import choose, last_fitting
from cinnabar_storage.regrading.records import (
    CancelledTask,
    Candidate,
    Plans,
    Regrade,
    RegradeFilter,
    RegradeKey,
    RegradeQuery,
    Reopened,
    Reopening,
    Step,
    Tally,
    Wanted,
)

_LEAST = Micros(0)


class SqlRegrades:
    """Implements ports.RegradeShard on the primary of a shard."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def _held(self) -> tuple[int, bytes]:
        return held_args(self._server.buckets)

    async def create(self, regrade: Regrade, claim_seconds: float) -> tuple[Regrade, Lsn]:
        async def work(driver: Driver) -> tuple[Regrade, Lsn]:
            await driver.fetchval(
                statements.CREATE,
                *(regrade.regrade_id, regrade.tenant, regrade.course, regrade.assignment),
                *(_filter_text(regrade.filter), regrade.revision_id, regrade.shadow, regrade.reason),
                *(regrade.actor, regrade.priority, claim_seconds),
            )
            [row] = await driver.fetch(statements.GET, regrade.tenant, regrade.regrade_id)
            return _regrade(row), await flushed(driver)

        return await self._server.run(work)

    async def get(self, key: RegradeKey) -> Regrade | None:
        rows = await self._server.run(lambda driver: driver.fetch(statements.GET, *key))
        return _regrade(rows[0]) if rows else None

    async def list(self, query: RegradeQuery) -> list[Regrade]:
        return list(
            map(_regrade, await self._server.run(lambda driver: driver.fetch(statements.LIST, *query)))
        )

    async def decide(
        self, key: RegradeKey, wanted: Wanted, actor: str, claim_seconds: float
    ) -> tuple[Regrade | None, Lsn]:
        async def work(driver: Driver) -> tuple[Regrade | None, Lsn]:
            await driver.fetchval(statements.DECIDE, *key, wanted, actor, claim_seconds, wanted.name.lower())
            rows = await driver.fetch(statements.GET, *key)
            return _regrade(rows[0]) if rows else None, await flushed(driver)

        return await self._server.run(work)

    async def claim(self, limit: int, claim_seconds: float) -> list[RegradeKey]:
        rows = await self._server.run(
            lambda driver: driver.fetch(statements.CLAIM, limit, claim_seconds, *self._held)
        )
        return [RegradeKey(row[0], row[1]) for row in rows]

    async def advanced(self, regrade: Regrade, *, busy: bool, claim_seconds: float) -> bool:
        args = (regrade.tenant, regrade.regrade_id, regrade.wanted, busy, claim_seconds)
        changed = await self._server.run(lambda driver: driver.fetchval(statements.ADVANCED, *args))
        return busy or not changed

    async def upcoming_revisions(self, regrade: Regrade, limit: int) -> list[str]:
        async def work(driver: Driver) -> list[str]:
            after = await driver.fetchval(statements.CURSOR, *_key(regrade), Wanted.OPEN)
            args = (
                *_page_arguments(regrade, after or "", limit),
                *self._held,
                regrade.filter.score_below is not None,
            )
            return [row[0] for row in await driver.fetch(statements.UPCOMING_REVISIONS, *args)]

        return await self._server.run(work)

    async def open(self, regrade: Regrade, plans: Plans, limit: int) -> Step:
        async def work(driver: Driver, after: str) -> Step:
            page = await driver.fetch(statements.PAGE, *_page_arguments(regrade, after, limit), *self._held)
            revisions: dict[str, str] = {}
            for submission_id, revision_id in page:
                if revision_id not in plans:
                    break
                revisions[submission_id] = revision_id
            if not revisions:
                return await self._moved(driver, regrade, after, done=not page)
            found = await _candidates(driver, regrade.tenant, revisions, regrade.regrade_id)
            given = regrade.filter

            def chosen(candidates: Sequence[Candidate]) -> tuple[list[Reopened], int]:
                return choose(
                    candidates,
                    plans,
                    revision_id=regrade.revision_id,
                    items=given.items,
                    score_below=given.score_below,
                )

            last = last_fitting(list(revisions), chosen(found)[0], limit)
            tasks, skipped = chosen([one for one in found if one.submission_id <= last])
            opened = await _open(
                driver,
                tasks,
                *(regrade.tenant, regrade.priority, regrade.shadow, regrade.revision_id),
                *(regrade.regrade_id, regrade.actor, regrade.regrade_id),
            )
            done = len(page) < limit and last == page[-1][0]
            step = await self._moved(
                driver,
                regrade,
                last,
                done=done,
                opened=len(opened),
                skipped=skipped + len(tasks) - len(opened),
            )
            changed = sorted({task[0] for task in opened})
            queued = await _queued(driver, regrade.tenant, opened)
            return step._replace(opened=queued, changed=changed)

        return await self._step(regrade, Wanted.OPEN, work)

    async def promote(self, regrade: Regrade, limit: int) -> Step:
        async def work(driver: Driver, after: str) -> Step:
            cancelled = await _cancel(driver, regrade, limit, self._held)
            if cancelled:
                return _cancelled_step(cancelled)
            page = [
                row[0]
                for row in await driver.fetch(statements.SHADOWS, *_key(regrade), after, limit, *self._held)
            ]
            if not page:
                return await self._moved(driver, regrade, after, done=True)
            await driver.fetch(statements.LOCK, regrade.tenant, page)
            promoted, overtaken = (
                await driver.fetch(statements.PROMOTE, *_key(regrade), page, regrade.decided_by)
            )[0]
            step = await self._moved(
                *(driver, regrade, page[-1]),
                done=len(page) < limit,
                promoted=promoted,
                overtaken=overtaken,
            )
            return step._replace(changed=page)

        return await self._step(regrade, Wanted.PROMOTE, work)

    async def discard(self, regrade: Regrade, limit: int) -> Step:
        async def work(driver: Driver, after: str) -> Step:
            cancelled = await _cancel(driver, regrade, limit, self._held)
            if cancelled:
                return _cancelled_step(cancelled)
            return await self._moved(driver, regrade, after, done=True)

        return await self._step(regrade, Wanted.DISCARD, work)

    async def _step(
        self, regrade: Regrade, phase: Wanted, work: Callable[[Driver, str], Awaitable[Step]]
    ) -> Step:
        """Runs ``work`` after the cursor of the part, which nobody else touches meanwhile."""

        async def locked(driver: Driver) -> Step:
            await driver.fetchval(statements.ENTER, *_key(regrade), phase)
            [[reached, done, after]] = await driver.fetch(statements.PART, *_key(regrade))
            if reached != phase or done:
                return Step(True, [], [], [], Lsn(0))
            return await work(driver, after)

        step = await self._server.transact(locked)
        return step._replace(lsn=await self._server.run(flushed))

    async def _moved(
        self,
        driver: Driver,
        regrade: Regrade,
        after: str,
        *,
        done: bool,
        opened: int = 0,
        skipped: int = 0,
        promoted: int = 0,
        overtaken: int = 0,
    ) -> Step:
        await driver.fetchval(
            statements.MOVED, *_key(regrade), after, done, opened, skipped, promoted, overtaken
        )
        return Step(done, [], [], [], Lsn(0))

    async def tallies(self, keys: Sequence[RegradeKey]) -> tuple[list[Tally], Lsn]:
        if not keys:
            return [], Lsn(0)
        columns = tuple(zip(*keys, strict=True))

        async def work(driver: Driver) -> tuple[list[Tally], Lsn]:
            rows = await driver.fetch(statements.TALLIES, *columns, *self._held)
            return [Tally._make(row) for row in rows], await flushed(driver)

        return await self._server.read(work)

    async def reopen(self, wanted: Reopening, plans: Plans) -> tuple[list[OpenTask], Lsn]:
        # What a first attempt was about to open: when its commit was cut off, a second finds it open.
        tried: list[tuple[str, str, int]] = []

        async def work(driver: Driver) -> list[OpenTask]:
            name = f"submissions/{wanted.submission_id}"
            rows = await driver.fetch(statements.LOCK, wanted.tenant, [wanted.submission_id])
            if not rows:
                raise ResourceNotFound(name)
            if tried:
                mine = await _queued(driver, wanted.tenant, tried)
                if mine:
                    return mine
            if wanted.etag and wanted.etag != await _etag(driver, wanted):
                raise EtagMismatch(name)
            found = await _candidates(driver, wanted.tenant, {rows[0][0]: rows[0][1]}, "")
            tasks, _ = choose(
                found,
                plans,
                revision_id=wanted.revision_id,
                items=wanted.items,
                over_people=bool(wanted.items),
            )
            opened = await _open(
                *(driver, tasks, wanted.tenant, wanted.priority, False, wanted.revision_id),
                *("", wanted.actor, wanted.reason),
            )
            if not opened:
                raise StateForbids(name, "not to be graded again now")
            tried[:] = opened
            return await _queued(driver, wanted.tenant, opened)

        return await self._server.transact(work), await self._server.run(flushed)


def _key(regrade: Regrade) -> tuple[str, str]:
    return regrade.tenant, regrade.regrade_id


def _page_arguments(regrade: Regrade, after: str, limit: int) -> tuple[object, ...]:
    given = regrade.filter
    before = regrade.create_time
    if given.created_before is not None:
        before = min(before, given.created_before)
    authors = list(given.authors) or None
    return (
        *(regrade.tenant, regrade.course, regrade.assignment, after),
        *(given.created_after or _LEAST, before, authors, limit),
    )


async def _etag(driver: Driver, wanted: Reopening) -> str:
    """Of the submission, which is locked; so are its tasks, for graders do not need the former."""
    args = (wanted.submission_id, wanted.tenant)
    tasks = await driver.fetch(LOCK_TASKS, *args)
    counting = {row[0]: row[1] for row in await driver.fetch(CURRENT_GENERATIONS, *args)}
    visible = [(row[0], row[1], row[2]) for row in tasks if not row[3] and row[1] > counting.get(row[0], 0)]
    return etag_from(visible, counting.items())


async def _candidates(
    driver: Driver, tenant: str, revisions: dict[str, str], regrade_id: str
) -> list[Candidate]:
    """Of these submissions with their revisions, ascending by submission and item."""
    rows = await driver.fetch(statements.CANDIDATES, tenant, list(revisions), regrade_id)
    return [Candidate(row[0], revisions[row[0]], *row[1:]) for row in rows]


async def _open(driver: Driver, tasks: Sequence[Reopened], *args: object) -> list[tuple[str, str, int]]:
    """Opens those that still can be; returns (submission, item, generation) of them."""
    if not tasks:
        return []
    rows = await driver.fetch(statements.OPEN, *zip(*tasks, strict=True), *args)
    return [(row[0], row[1], row[2]) for row in rows]


async def _queued(driver: Driver, tenant: str, tasks: Sequence[tuple[str, str, int]]) -> list[OpenTask]:
    """The tasks as the queue takes them, as many as there is room for."""
    if not tasks:
        return []
    rows = await driver.fetch(statements.OPENED, *zip(*tasks, strict=True), tenant, MAX_PAGE_BYTES)
    return list(map(open_task, rows))


async def _cancel(
    driver: Driver, regrade: Regrade, limit: int, held: tuple[int, bytes]
) -> list[CancelledTask]:
    rows = await driver.fetch(statements.CANCEL, *_key(regrade), limit, regrade.decided_by, *held)
    return [CancelledTask._make(row) for row in rows]


def _cancelled_step(cancelled: list[CancelledTask]) -> Step:
    return Step(False, [], cancelled, sorted({task.submission_id for task in cancelled}), Lsn(0))


def _filter_text(given: RegradeFilter) -> str:
    return json.dumps(given._asdict())


def _filter(text: str) -> RegradeFilter:
    fields: dict[str, Any] = json.loads(text)
    return RegradeFilter(tuple(fields.pop("authors")), tuple(fields.pop("items")), **fields)


def _regrade(row: Sequence[Any]) -> Regrade:
    regrade = Regrade._make((*row[:4], _filter(row[4]), *row[5:10], micros(row[10]), *row[11:14]))
    return regrade._replace(wanted=Wanted(regrade.wanted))
