"""Which buckets a shard owns, and their moves."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Identity, PrimaryKeyConstraint, SmallInteger, Table, text

from cinnabar_storage.adapters.sql.tables.schema import id_column, metadata, time_column

# What this shard owns of the 1,024 buckets; no row is nothing. States: bucket_map.BucketState.
buckets = Table(
    "buckets",
    metadata,
    Column("bucket", SmallInteger, nullable=False, autoincrement=False),
    Column("state", SmallInteger, nullable=False),
    # Of the map in which it came here: the highest of a bucket is the one that counts.
    Column("epoch", BigInteger, nullable=False),
    # Of the mover that may change the row while the bucket moves.
    Column("term", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("bucket", name="buckets_pkey"),
)

# The above in one row, for the guard that every write passes.
bucket_guard = Table(
    "bucket_guard",
    metadata,
    Column("singleton", Boolean, nullable=False, server_default=text("true")),
    Column("version", BigInteger, nullable=False),
    Column("moving", Boolean, nullable=False),
    PrimaryKeyConstraint("singleton", name="bucket_guard_pkey"),
)

# Rows that were written after they may have been copied to the shard where their bucket goes.
bucket_changes = Table(
    "bucket_changes",
    metadata,
    Column("change_id", BigInteger, Identity(always=True), nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    id_column("source"),
    id_column("row_id"),
    # The notes of one bucket are read while its writers wait, among those of all others that move.
    PrimaryKeyConstraint("bucket", "change_id", name="bucket_changes_pkey"),
)

# Moves that are planned or under way, in order; only the table of shard 0 is used.
bucket_moves = Table(
    "bucket_moves",
    metadata,
    Column("bucket", SmallInteger, nullable=False, autoincrement=False),
    Column("from_shard", SmallInteger, nullable=False),
    Column("to_shard", SmallInteger, nullable=False),
    Column("step", SmallInteger, nullable=False),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    id_column("actor"),
    time_column("update_time"),
    PrimaryKeyConstraint("bucket", name="bucket_moves_pkey"),
)

# How many shards the buckets were given to at first, the newest epoch, and the
# newest mover; only the table of shard 0 is used.
bucket_control = Table(
    "bucket_control",
    metadata,
    Column("singleton", Boolean, nullable=False, server_default=text("true")),
    Column("first_shards", SmallInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),
    PrimaryKeyConstraint("singleton", name="bucket_control_pkey"),
)
