"""Which buckets a shard owns: read for the map, and given out when the suite is new."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.pool import NullPool

from cinnabar_common.names import BUCKETS
from cinnabar_storage.adapters.sql.server import Driver, engine_of
from cinnabar_storage.records import Lsn
from cinnabar_storage.shards.bucket_map import Claim, Claims, first_owner

log = logging.getLogger(__name__)

_CLAIMS = """
SELECT coalesce((SELECT version FROM bucket_guard), 0),
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END
        - '0/0'::pg_lsn)::bigint,
       coalesce(array_agg(bucket), '{}'), array_agg(state), array_agg(epoch)
FROM buckets WHERE state <= 3
"""
# Decided once: where rows are must not depend on how many shards there are later.
_DECIDE = text(
    """
    INSERT INTO bucket_control (first_shards, epoch, term) VALUES (:shards, 1, 0)
    ON CONFLICT (singleton) DO NOTHING
    """
)
_DECIDED = text("SELECT first_shards FROM bucket_control")
_GIVE = text(
    """
    INSERT INTO buckets (bucket, state, epoch) SELECT unnest(CAST(:buckets AS smallint[])), 1, 1
    WHERE NOT EXISTS (SELECT FROM bucket_guard) ON CONFLICT (bucket) DO NOTHING
    """
)


async def claims(driver: Driver) -> Claims:
    """See ports.Shard."""
    row = await driver.fetchrow(_CLAIMS)
    if row is None or not row[2]:
        return Claims(0 if row is None else row[0], [])
    # Read in the same moment or later: what is claimed was on disk by then.
    return Claims(row[0], list(map(Claim, row[2], row[3], row[4])), Lsn(row[1]))


async def give_out(primary_urls: Sequence[str], *, connect_seconds: float) -> None:
    """Gives the buckets to the shards that there are when it is called for the first time.

    Contiguous ranges, which is how releases without a map have laid their rows.
    Later calls finish what an earlier one did not, and change nothing else: a
    shard that is added gets none. Several processes may do this at once.
    """
    first, *_ = engines = [
        engine_of(url, connect_seconds=connect_seconds, poolclass=NullPool) for url in primary_urls
    ]
    async with first.begin() as connection:
        await connection.execute(_DECIDE, {"shards": len(engines)})
    async with first.connect() as connection:
        shards: int = (await connection.execute(_DECIDED)).scalar_one()
    for index, engine in enumerate(engines):
        owned = [bucket for bucket in range(BUCKETS) if first_owner(bucket, shards) == index]
        async with engine.begin() as connection:
            given = await connection.execute(_GIVE, {"buckets": owned})
        if given.rowcount:
            log.info("buckets given out", extra={"shard": index, "buckets": given.rowcount})
