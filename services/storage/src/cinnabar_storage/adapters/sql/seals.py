"""Seals over the audit of a shard: hashes of its rows in commit order, each with the hash of the one before.

docs/audit.md describes what is hashed, for those who want to compute it
themselves. Postgres does the hashing: rows need not travel for it, and the
service does not stand still meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cinnabar_storage.adapters.sql.follower import SETTLED
from cinnabar_storage.adapters.sql.server import Driver, Server
from cinnabar_storage.trail.audit import ORIGIN, AuditPosition, CheckedSeal, SealLink, SealPage

FOLLOWER = "seals"
EVENTS_PER_SEAL = 1000
"""At most so many: what is read at once to verify a seal."""
_MOST_EVENTS = 100_000  # of a seal that some other release made
_SEALS_PER_CHECK = 20


def _fields(*texts: str) -> str:
    """SQL of the bytes that stand for a list of texts: of each its length in bytes, ":", itself, ","."""
    parts = " || ".join(f"octet_length({text}) || ':' || {text} || ','" for text in texts)
    return f"convert_to({parts}, 'UTF8')"


def _micros(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint::text"


_TEXTS_DIGEST = "sha256({})".format(_fields("coalesce(salt::text, '')", "actor", "detail"))
_ROW_DIGEST = "sha256({})".format(
    _fields(
        *("audit_id::text", "xid::text", _micros("at"), "tenant", "action", "submission_id", "item_id"),
        *("generation::text", f"encode(coalesce(redacted_digest, {_TEXTS_DIGEST}), 'hex')"),
    )
)
ROWS_HASH = f"sha256(coalesce(string_agg({_ROW_DIGEST}, ''::bytea ORDER BY xid, audit_id), ''::bytea))"
"""Of the rows of ``audit`` that are aggregated, in commit order."""
SEAL_HASH = "sha256({})".format(
    _fields(
        *("'cinnabar-seal-1'", "seal::text", "first_xid::text", "first_audit_id::text"),
        *("last_xid::text", "last_audit_id::text", "events::text"),
        *("encode(rows_hash, 'hex')", "encode(previous_hash, 'hex')", _micros("create_time")),
    )
)
"""Of a row with the columns of ``audit_seals``."""

# All tenants: a seal covers what the shard did.
_SEAL = f"""
WITH batch AS (
    SELECT * FROM audit WHERE (xid, audit_id) > ($1, $2) AND {SETTLED} ORDER BY xid, audit_id LIMIT $3
), ends AS (
    SELECT (array_agg(xid ORDER BY xid, audit_id))[1] AS first_xid,
           (array_agg(audit_id ORDER BY xid, audit_id))[1] AS first_audit_id,
           (array_agg(xid ORDER BY xid, audit_id))[count(*)::int] AS last_xid,
           (array_agg(audit_id ORDER BY xid, audit_id))[count(*)::int] AS last_audit_id,
           count(*)::int AS events, {ROWS_HASH} AS rows_hash
    FROM batch HAVING count(*) > 0
), sealed AS (
    SELECT coalesce(previous.seal, 0) + 1 AS seal, ends.*,
           coalesce(previous.hash, sha256('')) AS previous_hash, now() AS create_time
    FROM ends LEFT JOIN (SELECT seal, hash FROM audit_seals ORDER BY seal DESC LIMIT 1) AS previous ON true
)
INSERT INTO audit_seals (seal, first_xid, first_audit_id, last_xid, last_audit_id, events, rows_hash,
                         previous_hash, hash, create_time)
SELECT seal, first_xid, first_audit_id, last_xid, last_audit_id, events, rows_hash,
       previous_hash, {SEAL_HASH}, create_time
FROM sealed
RETURNING last_xid, last_audit_id, events
"""
# The proof is a row of the audit itself, which is sealed like all others. One
# proof for each erasure and shard, however many batches it takes.
_REDACT = f"""
WITH redacted AS (
    UPDATE audit SET redacted_digest = {_TEXTS_DIGEST}, erasure_id = $2, actor = '', detail = '', salt = NULL
    WHERE tenant = $1 AND submission_id = ANY($4::text[]) AND submission_id <> '' AND redacted_digest IS NULL
    RETURNING audit_id
), proven AS (
    INSERT INTO audit (tenant, actor, action, submission_id, item_id, generation, detail)
    SELECT $1, $3, 'erase', '', '', 0, $2
    WHERE EXISTS (SELECT FROM redacted) AND NOT EXISTS (
        SELECT FROM audit WHERE tenant = $1 AND submission_id = '' AND action = 'erase' AND detail = $2
    )
)
SELECT count(*) FROM redacted
"""


# The events of a seal are those after the ones of the seal before, or its own
# first if that one is not there. No more are read than the seal says, plus one to
# see that there are too many.
_CHECK = f"""
SELECT page.seal, page.last_xid, page.last_audit_id, page.hash, page.previous_hash, page.events,
       page.rows_hash, {SEAL_HASH}, found.number, found.digest, found.redacted, found.unproven
FROM (
    SELECT s.*,
           CASE WHEN s.seal = lag(s.seal, 1, $1::bigint) OVER given + 1
                THEN lag(s.last_xid, 1, $2::bigint) OVER given ELSE s.first_xid END AS after_xid,
           CASE WHEN s.seal = lag(s.seal, 1, $1::bigint) OVER given + 1
                THEN lag(s.last_audit_id, 1, $3::bigint) OVER given ELSE s.first_audit_id - 1
                END AS after_audit_id
    FROM audit_seals s WHERE s.seal > $1
    WINDOW given AS (ORDER BY s.seal)
    ORDER BY s.seal LIMIT $4
) AS page
CROSS JOIN LATERAL (
    SELECT count(*) AS number, {ROWS_HASH} AS digest,
           count(redacted_digest) AS redacted,
           count(redacted_digest) FILTER (WHERE NOT proven OR actor <> '' OR detail <> '' OR salt IS NOT NULL)
               AS unproven
    FROM (
        SELECT a.*, redacted_digest IS NOT NULL AND EXISTS (
                   SELECT FROM audit AS proof
                   WHERE proof.submission_id = '' AND proof.tenant = a.tenant AND proof.action = 'erase'
                       AND proof.detail = a.erasure_id
               ) AS proven
        FROM audit a
        WHERE (a.xid, a.audit_id) > (page.after_xid, page.after_audit_id)
            AND (a.xid, a.audit_id) <= (page.last_xid, page.last_audit_id)
        ORDER BY a.xid, a.audit_id LIMIT least(page.events, {_MOST_EVENTS})::bigint + 1
    ) AS a
) AS found
ORDER BY page.seal
"""
_FOLLOWED = "SELECT xid, audit_id FROM audit_followers WHERE name = $1"
_UNSEALED = "SELECT count(*) FROM audit WHERE (xid, audit_id) > ($1, $2)"


async def check_seals(server: Server, after: SealLink) -> SealPage:
    """See ports.Shard. Each call has a snapshot of its own, so that none is held for long."""
    return await server.run(lambda driver: seals_after(driver, after))


async def seals_after(driver: Driver, after: SealLink) -> SealPage:
    """The same, as the transaction sees it in which the driver is."""
    # First, so that what is sealed meanwhile does not look as if its seal were missing.
    reached = await driver.fetchrow(_FOLLOWED, FOLLOWER)
    rows = await driver.fetch(_CHECK, after.seal, *after.last, _SEALS_PER_CHECK + 1)
    more = len(rows) > _SEALS_PER_CHECK
    seals = [_checked(row) for row in rows[:_SEALS_PER_CHECK]]
    if more:
        return SealPage(seals, more=True, unsealed=0, followed=ORIGIN)
    end = seals[-1].link if seals else after
    followed = AuditPosition(reached[0], reached[1]) if reached is not None else ORIGIN
    unsealed = await driver.fetchval(_UNSEALED, *end.last)
    return SealPage(seals, more=False, unsealed=unsealed, followed=followed)


def _checked(row: Sequence[Any]) -> CheckedSeal:
    return CheckedSeal(SealLink(row[0], AuditPosition(row[1], row[2]), row[3]), *row[4:])


async def seal(driver: Driver, after: AuditPosition, limit: int) -> tuple[AuditPosition, int]:
    """The work of the follower that seals; see sql_follower.Work."""
    sealed = await driver.fetchrow(_SEAL, *after, limit)
    if sealed is None:
        return after, 0
    return AuditPosition(sealed[0], sealed[1]), sealed[2]


async def redact(
    driver: Driver, *, tenant: str, erasure_id: str, actor: str, submission_ids: Sequence[str]
) -> int:
    """Erases the texts (actor, detail) of the audit of submissions on this shard; returns of how many rows.

    What remains is their digest, so that seals still hold, and a row "erase" of
    ``actor`` with the erasure's id, without which a redacted row counts as
    tampered with. Rows stay on the shard that wrote them when their bucket
    moves: every shard must be asked. Repeating it is safe. Two calls for one
    erasure must not run on a shard at once: they might both write the proof.
    """
    return await driver.fetchval(_REDACT, tenant, erasure_id, actor, list(submission_ids))
