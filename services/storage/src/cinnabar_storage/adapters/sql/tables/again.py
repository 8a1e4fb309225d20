"""What waits for a person, or for being graded again."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

from cinnabar_storage.adapters.sql.tables.schema import id_column, metadata, time_column

# Grades that wait for a person: of each item at most one, the newest that counts and asked for it.
reviews = Table(
    "reviews",
    metadata,
    id_column("submission_id"),
    id_column("item_id"),
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    Column("generation", Integer, nullable=False),
    Column("score", Double, nullable=False),
    Column("max_score", Double, nullable=False),
    Column("flags", ARRAY(Text), nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("submission_id", "item_id", name="reviews_pkey"),
    Index("reviews_by_time", "tenant", "create_time", "submission_id", "item_id"),
    Index(
        "reviews_by_assignment",
        *("tenant", "course", "assignment", "create_time", "submission_id", "item_id"),
    ),
    info={"moves_by": "submission_id"},
)

# Grades that fallbacks made and that are to be replaced; a row whose grade counts no more is forgotten.
upgrades = Table(
    "upgrades",
    metadata,
    id_column("submission_id"),
    id_column("item_id"),
    id_column("tenant"),
    # Of the grade.
    Column("generation", Integer, nullable=False),
    id_column("queue"),
    # Null where it is the revision of the submission.
    id_column("revision_id", nullable=True),
    # Tasks that were opened for the item.
    Column("opened", SmallInteger, nullable=False, server_default=text("0")),
    time_column("due_time"),
    PrimaryKeyConstraint("submission_id", "item_id", name="upgrades_pkey"),
    Index("upgrades_due", "due_time", postgresql_where=text("opened < 3")),
    info={"moves_by": "submission_id"},
)

# Regrades of many submissions, each in the bucket of its course.
regrades = Table(
    "regrades",
    metadata,
    id_column("regrade_id"),
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    Column("filter", Text, nullable=False),
    # Empty where each submission is graded by its own.
    id_column("revision_id"),
    Column("shadow", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    id_column("actor"),
    Column("priority", Integer, nullable=False),
    time_column("create_time"),
    # What is decided: 1 open its tasks, 2 promote, 3 discard.
    Column("wanted", SmallInteger, nullable=False, server_default=text("1")),
    Column("decided_by", Text(collation="C"), nullable=False, server_default=text("''")),
    # Some part has not done what is wanted yet.
    Column("busy", Boolean, nullable=False, server_default=text("true")),
    time_column("claimed_until"),
    PrimaryKeyConstraint("regrade_id", name="regrades_pkey"),
    Index("regrades_by_assignment", "tenant", "course", "assignment", "regrade_id"),
    Index("regrades_busy", "claimed_until", postgresql_where=text("busy")),
    info={"moves_by": "regrade_id"},
)

# How far this shard is with a regrade; stays on its shard, whatever moves.
regrade_parts = Table(
    "regrade_parts",
    metadata,
    id_column("regrade_id"),
    id_column("tenant"),
    # Numbers of `wanted`; never goes back.
    Column("phase", SmallInteger, nullable=False),
    # Of the buckets of this shard when it began.
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("done", Boolean, nullable=False, server_default=text("false")),
    # The last submission that was looked at in this phase.
    Column("submission_id", Text(collation="C"), nullable=False, server_default=text("''")),
    Column("opened", BigInteger, nullable=False, server_default=text("0")),
    Column("skipped", BigInteger, nullable=False, server_default=text("0")),
    Column("promoted", BigInteger, nullable=False, server_default=text("0")),
    Column("overtaken", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("regrade_id", name="regrade_parts_pkey"),
)
