"""What lies beside submissions: files, sums of scores, erasures, what spans the shards."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

from cinnabar_storage.adapters.sql.tables.schema import id_column, metadata, time_column

# Files that lie beside the tables. Answers are attached by the transaction that creates
# their submission, artifacts are born with one. What is loose is collected.
uploads = Table(
    "uploads",
    metadata,
    id_column("upload_id"),
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    id_column("item_id"),
    id_column("author"),
    Column("kind", SmallInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("state", SmallInteger, nullable=False),
    id_column("object_key"),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    id_column("submission_id", nullable=True),
    PrimaryKeyConstraint("upload_id", name="uploads_pkey"),
    Index("uploads_by_author", "tenant", "author", "upload_id"),
    Index("uploads_by_submission", "submission_id", postgresql_where=text("submission_id IS NOT NULL")),
    Index("uploads_loose", "expire_time", postgresql_where=text("submission_id IS NULL OR state <> 2")),
    info={"moves_by": "upload_id"},
)

# What a submission has added to the sums below: a JSON list of item, criterion, score in millionths of a
# point, and part of the histogram. Follows its bucket by being counted anew, not by moving.
submission_scores = Table(
    "submission_scores",
    metadata,
    id_column("submission_id"),
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    Column("contributions", Text, nullable=False),
    PrimaryKeyConstraint("submission_id", name="submission_scores_pkey"),
    Index("submission_scores_by_bucket", text('"right"(submission_id, 4)'), "submission_id"),
)

# Sums over the submissions of this shard, in millionths of a point; whole numbers, so that nothing is left
# when all is taken away again. Of the item "" are whole submissions.
assignment_scores = Table(
    "assignment_scores",
    metadata,
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    id_column("item_id"),
    id_column("criterion"),
    Column("count", BigInteger, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("squares", Numeric, nullable=False),
    Column("histogram", ARRAY(BigInteger), nullable=False),
    PrimaryKeyConstraint(
        *("tenant", "course", "assignment", "item_id", "criterion"), name="assignment_scores_pkey"
    ),
)

# What was asked to be erased, and the proof that it was. The student is forgotten when it is done.
erasures = Table(
    "erasures",
    metadata,
    id_column("erasure_id"),
    id_column("tenant"),
    id_column("student"),
    id_column("subject"),
    id_column("actor"),
    Column("reason", Text, nullable=False),
    Column("submissions", BigInteger, nullable=False, server_default=text("0")),
    Column("grades", BigInteger, nullable=False, server_default=text("0")),
    Column("objects", BigInteger, nullable=False, server_default=text("0")),
    Column("redacted_events", BigInteger, nullable=False, server_default=text("0")),
    time_column("create_time"),
    Column("complete_time", DateTime(timezone=True)),
    time_column("claimed_until"),
    PrimaryKeyConstraint("erasure_id", name="erasures_pkey"),
    Index("erasures_open", "claimed_until", postgresql_where=text("complete_time IS NULL")),
    info={"moves_by": "erasure_id"},
)

# What operators want of queues, which span the shards: only the table of shard 0 is used.
queue_controls = Table(
    "queue_controls",
    metadata,
    id_column("queue"),
    Column("state", Integer, nullable=False),
    id_column("actor"),
    time_column("update_time"),
    PrimaryKeyConstraint("queue", name="queue_controls_pkey"),
)

# What tenants have spent on language models; only the table of shard 0 is used.
model_budgets = Table(
    "model_budgets",
    metadata,
    id_column("tenant"),
    id_column("scope"),
    Column("period", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    time_column("update_time"),
    PrimaryKeyConstraint("tenant", "scope", name="model_budgets_pkey"),
)
