"""The audit, its followers and its seals."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from cinnabar_storage.adapters.sql.tables.schema import id_column, metadata, time_column

# Stays on its shard when a bucket moves.
audit = Table(
    "audit",
    metadata,
    # Numbers are taken in blocks, so they order the rows of one connection only.
    Column("audit_id", BigInteger, Identity(always=True, cache=64), nullable=False),
    time_column("at"),
    id_column("tenant"),
    id_column("actor"),
    id_column("action"),
    id_column("submission_id"),
    id_column("item_id"),
    Column("generation", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    # Of the transaction that wrote it: followers read in this order. 0 for rows older than the column.
    Column("xid", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    # Goes into the digest of the texts, so that nobody finds out by guessing what was erased.
    Column("salt", Uuid, server_default=text("gen_random_uuid()")),
    # Of the texts that were here before they were erased, and the erasure.
    Column("redacted_digest", LargeBinary),
    id_column("erasure_id", nullable=True),
    PrimaryKeyConstraint("audit_id", name="audit_pkey"),
    Index("audit_in_commit_order", "xid", "audit_id"),
    Index("audit_by_submission", "submission_id"),
    Index("audit_redacted", "erasure_id", postgresql_where=text("erasure_id IS NOT NULL")),
)

# How far each follower has read the audit of this shard, and until when it rests.
audit_followers = Table(
    "audit_followers",
    metadata,
    id_column("name"),
    Column("xid", BigInteger, nullable=False, server_default=text("0")),
    Column("audit_id", BigInteger, nullable=False, server_default=text("0")),
    Column("rest_until", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")),
    PrimaryKeyConstraint("name", name="audit_followers_pkey"),
)

# A chain over the audit of this shard, in its commit order.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("seal", BigInteger, nullable=False, autoincrement=False),
    Column("first_xid", BigInteger, nullable=False),
    Column("first_audit_id", BigInteger, nullable=False),
    Column("last_xid", BigInteger, nullable=False),
    Column("last_audit_id", BigInteger, nullable=False),
    Column("events", Integer, nullable=False),
    Column("rows_hash", LargeBinary, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("seal", name="audit_seals_pkey"),
)
