"""Seals over the audit: whatever somebody does to it past the service shows, and where."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, cast

import pytest
import pytest_asyncio

from cinnabar_storage.adapters.sql import seals as sql_seals
from cinnabar_storage.adapters.sql.follower import sql_step
from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.trail.audit import BEFORE_THE_FIRST, Break, SealLink, breaks_of
from tests.support.servers import ShardUrls

_ADD = """
INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
SELECT 'acme', 'worker/wörld', 'grade', 's' || number / 4, 'q1', number, 'detail ' || number
FROM generate_series(1, 10) AS number
"""
_ROW = "SELECT min(audit_id) + 4 FROM audit"  # the fifth: under the second of four seals


class RolledBack(Exception):
    """Ends a transaction without a trace."""


@pytest_asyncio.fixture(scope="module")
async def sealed(storage_shards: list[ShardUrls]) -> AsyncGenerator[Server]:
    """Ten events under four seals, on a shard that nobody else uses."""
    async with Server(
        storage_shards[0].primary_url,
        name="test",
        pool_size=2,
        pool_wait_seconds=5,
        connect_seconds=5,
        statement_seconds=5,
    ) as server:
        await server.run(lambda driver: driver.fetchval(_ADD))
        await seal(server)
        yield server


async def seal(server: Server) -> None:
    """Seals what there is, three events at a time."""
    step = sql_step(server, sql_seals.FOLLOWER, sql_seals.seal, limit=3)
    awake = "UPDATE audit_followers SET rest_until = '-infinity'"
    while (await step()).rows:
        await server.run(lambda driver: driver.fetchval(awake))


async def findings(driver: Driver) -> tuple[list[tuple[int, str]], int, int, int]:
    """Breaks, seals, redacted and unsealed events."""
    breaks: list[Break] = []
    seals = redacted = 0
    link: SealLink = BEFORE_THE_FIRST
    while True:
        page = await sql_seals.seals_after(driver, link)
        breaks += breaks_of(link, page)
        seals += len(page.seals)
        redacted += sum(one.redacted for one in page.seals)
        link = page.seals[-1].link if page.seals else link
        if not page.more:
            return [(one.seal, one.problem) for one in breaks], seals, redacted, page.unsealed


async def after(server: Server, *tampering: str) -> list[tuple[int, str]]:
    """The breaks that are found after some statements, of which nothing remains."""
    found: list[tuple[int, str]] = []

    async def work(driver: Driver) -> None:
        for statement in tampering:
            assert await driver.fetch(statement + " RETURNING 1"), "it must change something"
        found.extend((await findings(driver))[0])
        raise RolledBack

    with pytest.raises(RolledBack):
        await server.transact(work)
    return found


async def test_what_nobody_touched_holds(sealed: Server) -> None:
    assert await sealed.run(findings) == ([], 4, 0, 0)


@pytest.mark.parametrize(
    "change",
    [
        "detail = 'other'",
        "actor = 'other'",
        "action = 'other'",
        "tenant = 'other'",
        "submission_id = 'other'",
        "item_id = 'other'",
        "generation = generation + 1",
        "at = at + interval '1 microsecond'",
        "salt = gen_random_uuid()",
        "salt = NULL",
        # What moves from one field to the next is a change too.
        "actor = actor || 'd', detail = substr(detail, 2)",
    ],
)
async def test_a_changed_row_shows(sealed: Server, change: str) -> None:
    assert await after(sealed, f"UPDATE audit SET {change} WHERE audit_id = ({_ROW})") == [(2, "rows differ")]


def copy_of_row(audit_id: str, xid: str) -> str:
    """A row put in beside the fifth."""
    return (
        "INSERT INTO audit (audit_id, xid, tenant, actor, action, submission_id, item_id, generation, detail)"
        f" OVERRIDING SYSTEM VALUE SELECT {audit_id}, {xid}, tenant, actor, action, submission_id, item_id,"
        f" generation, detail FROM audit WHERE audit_id = ({_ROW})"
    )


async def test_missing_and_added_rows_show(sealed: Server) -> None:
    gone = f"DELETE FROM audit WHERE audit_id = ({_ROW})"
    assert await after(sealed, gone) == [(2, "rows missing")]
    first = "DELETE FROM audit WHERE audit_id = (SELECT min(audit_id) FROM audit)"
    assert await after(sealed, first) == [(1, "rows missing")]
    last = "DELETE FROM audit WHERE audit_id = (SELECT max(audit_id) FROM audit)"
    assert await after(sealed, last) == [(4, "rows missing")]
    # Before everything, and with the number of a transaction between two others.
    assert await after(sealed, copy_of_row("-7", "-7")) == [(1, "rows added")]
    assert await after(sealed, copy_of_row("1000000", "xid - 1")) == [(1, "rows added")]
    assert await after(sealed, copy_of_row("1000000", "0"), first) == [(1, "rows differ")]
    assert await after(sealed, "DELETE FROM audit") == [(seal, "rows missing") for seal in (1, 2, 3, 4)]


async def test_missing_and_changed_seals_show(sealed: Server) -> None:
    for seal_number in (1, 2, 4):
        gone = f"DELETE FROM audit_seals WHERE seal = {seal_number}"
        assert await after(sealed, gone) == [(seal_number, "seal missing")]
    assert await after(sealed, "DELETE FROM audit_seals") == [(1, "seal missing")]
    for change in (
        "rows_hash = sha256('')",
        "hash = sha256('')",
        "events = events + 1",
        "last_audit_id = last_audit_id + 1",
        "create_time = create_time + interval '1 second'",
        "previous_hash = sha256('')",
    ):
        found = await after(sealed, f"UPDATE audit_seals SET {change} WHERE seal = 2")
        assert (2, "seal differs") in found
        assert {number for number, _ in found} <= {2, 3}


def fields(*texts: str) -> bytes:
    """docs/audit.md, "What is hashed"."""
    return b"".join(b"%d:%b," % (len(raw), raw) for raw in (text.encode() for text in texts))


def micros(time: datetime) -> str:
    return str((time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def row_digest(row: Sequence[Any]) -> bytes:
    """Of audit_id, xid, at, tenant, action, submission_id, item_id, generation, salt, actor, detail."""
    texts = sha256(fields(str(row[8] or ""), row[9], row[10])).hexdigest()
    fixed = (str(row[0]), str(row[1]), micros(row[2]), *row[3:7], str(row[7]))
    return sha256(fields(*fixed, texts)).digest()


def seal_hash(row: Sequence[Any]) -> bytes:
    """Of seal, first and last position, events, rows_hash, previous_hash, create_time."""
    numbers = (str(number) for number in row[:6])
    text = fields("cinnabar-seal-1", *numbers, row[6].hex(), row[7].hex(), micros(row[8]))
    return sha256(text).digest()


_SEALS = """
SELECT seal, first_xid, first_audit_id, last_xid, last_audit_id, events, rows_hash, previous_hash,
       create_time, hash FROM audit_seals ORDER BY seal
"""
_ROWS = """
SELECT audit_id, xid, at, tenant, action, submission_id, item_id, generation, salt, actor, detail FROM audit
WHERE (xid, audit_id) >= ($1, $2) AND (xid, audit_id) <= ($3, $4) ORDER BY xid, audit_id
"""


async def test_everybody_can_compute_the_hashes(sealed: Server) -> None:
    seals = await sealed.run(lambda driver: driver.fetch(_SEALS))
    previous = sha256(b"").digest()
    for row in seals:
        rows = await sealed.run(lambda driver, row=row: driver.fetch(_ROWS, *row[1:5]))
        assert len(rows) == row[5]
        assert sha256(b"".join(map(row_digest, rows))).digest() == row[6]
        assert row[7] == previous
        assert seal_hash(row) == row[9]
        previous = row[9]


async def test_a_seal_that_was_made_anew_does_not_fit_the_next(sealed: Server) -> None:
    [_, row, *_] = await sealed.run(lambda driver: driver.fetch(_SEALS))
    forged = seal_hash([*row[:6], sha256(b"forged").digest(), *row[7:9]])
    found = await after(
        sealed,
        f"UPDATE audit_seals SET rows_hash = sha256('forged'), hash = '\\x{forged.hex()}' WHERE seal = 2",
    )
    assert found == [(2, "rows differ"), (3, "not linked to the seal before")]


async def test_erased_texts_hold_with_their_proof_only(sealed: Server) -> None:
    async def erase(driver: Driver) -> int:
        return await sql_seals.redact(
            driver, tenant="acme", erasure_id="erasure-1", actor="operator/eve", submission_ids=["s1"]
        )

    async def erased(driver: Driver) -> None:
        assert await erase(driver) == 4
        assert await erase(driver) == 0
        assert await driver.fetchval("SELECT count(*) FROM audit WHERE detail = 'erasure-1'") == 1
        texts = "SELECT actor || detail || coalesce(salt::text, '') FROM audit WHERE submission_id = 's1'"
        assert {row[0] for row in await driver.fetch(texts)} == {""}
        assert await findings(driver) == ([], 4, 4, 1)
        for tampering, problems in (
            (
                "DELETE FROM audit WHERE action = 'erase'",
                [(2, "redacted without proof"), (3, "redacted without proof")],
            ),
            ("UPDATE audit SET detail = 'x' WHERE generation = 5", [(2, "redacted without proof")]),
            ("UPDATE audit SET erasure_id = NULL WHERE generation = 5", [(2, "redacted without proof")]),
            ("UPDATE audit SET action = 'x' WHERE generation = 5", [(2, "rows differ")]),
            ("UPDATE audit SET redacted_digest = '' WHERE generation = 5", [(2, "rows differ")]),
        ):
            try:
                async with driver.transaction():
                    await driver.fetchval(tampering)
                    assert (await findings(driver))[0] == problems
                    raise RolledBack
            except RolledBack:
                pass
        raise RolledBack

    with pytest.raises(RolledBack):
        await sealed.transact(erased)
    foreign = sql_seals.redact
    assert (
        await sealed.run(
            lambda driver: foreign(
                driver, tenant="other", erasure_id="erasure-2", actor="operator/eve", submission_ids=["s1"]
            )
        )
        == 0
    )
    assert await sealed.run(findings) == ([], 4, 0, 0)


async def test_what_is_done_next_goes_on_with_the_chain(sealed: Server) -> None:
    await sealed.run(lambda driver: driver.fetchval(_ADD))
    assert await sealed.run(findings) == ([], 4, 0, 10)
    # More seals than one check takes.
    for _ in range(6):
        await sealed.run(lambda driver: driver.fetchval(_ADD))
    await seal(sealed)
    breaks, seals, _, unsealed = await sealed.run(findings)
    assert (breaks, unsealed) == ([], 0)
    assert seals == 4 + 24


class Meanwhile:
    """A driver that lets something happen after its first look at the seals."""

    def __init__(self, driver: Driver, happening: Callable[[], Awaitable[None]]) -> None:
        self._driver = driver
        self._happening = happening
        self.happened = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def fetch(self, query: str, *args: object) -> list[Sequence[Any]]:
        """See Driver."""
        rows = await self._driver.fetch(query, *args)
        if "audit_seals" in query and not self.happened:
            self.happened = True
            await self._happening()
        return rows


async def test_what_is_sealed_while_it_is_checked_is_no_break(sealed: Server) -> None:
    link: SealLink = BEFORE_THE_FIRST
    while (page := await sealed.run(partial(sql_seals.seals_after, after=link))).seals:
        link = page.seals[-1].link
    await sealed.run(lambda driver: driver.fetchval(_ADD))

    async def check(driver: Driver) -> list[Break]:
        meanwhile = Meanwhile(driver, lambda: seal(sealed))
        found = breaks_of(link, await sql_seals.seals_after(cast("Driver", meanwhile), link))
        assert meanwhile.happened
        return found

    assert await sealed.run(check) == []
    last = await sealed.run(lambda driver: sql_seals.seals_after(driver, link))
    assert (len(last.seals) > 0, breaks_of(link, last)) == (True, [])
