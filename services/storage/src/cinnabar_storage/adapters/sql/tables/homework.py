"""Assignments, submissions, their tasks and grades."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

from cinnabar_storage.adapters.sql.tables.schema import id_column, metadata, time_column

assignments = Table(
    "assignments",
    metadata,
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    id_column("revision_id"),
    time_column("create_time"),
    PrimaryKeyConstraint("tenant", "course", "assignment", name="assignments_pkey"),
    info={"moves_by": "revision_id"},
)

assignment_revisions = Table(
    "assignment_revisions",
    metadata,
    id_column("tenant"),
    id_column("revision_id"),
    id_column("course"),
    id_column("assignment"),
    Column("spec", LargeBinary, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("tenant", "revision_id", name="assignment_revisions_pkey"),
    Index("assignment_revisions_by_assignment", "tenant", "course", "assignment", "revision_id"),
    info={"moves_by": "revision_id"},
)

submissions = Table(
    "submissions",
    metadata,
    id_column("submission_id"),
    id_column("tenant"),
    id_column("course"),
    id_column("assignment"),
    id_column("revision_id"),
    id_column("author"),
    id_column("request_id", nullable=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("answers", LargeBinary, nullable=False),
    Column("max_score", Double, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("grade_after", DateTime(timezone=True)),
    Column("grade_by", DateTime(timezone=True)),
    # Tasks that it was accepted with; null when a release wrote it that did not know the column.
    Column("task_count", Integer),
    PrimaryKeyConstraint("submission_id", name="submissions_pkey"),
    # An instructor's list of an assignment.
    Index("submissions_by_assignment", "tenant", "course", "assignment", "submission_id"),
    # A student's own, and of each request one. Every row goes to another page of it, and each page that is
    # touched first after a checkpoint goes into the log whole: hence one index for both, not two.
    Index("submissions_of_author", "tenant", "author", "request_id", unique=True),
    info={"moves_by": "submission_id"},
)

# Only tasks without a grade: a grade deletes its task. So the table stays small,
# nearly every row of it dies young, and vacuum must come by count, not by share
# of the table, and without pauses. Giving pages back to the file system would
# lock the table and hold up replicas, for pages that are needed again at once.
tasks = Table(
    "tasks",
    metadata,
    id_column("submission_id"),
    id_column("item_id"),
    id_column("tenant"),
    Column("state", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    id_column("queue"),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    time_column("update_time"),
    # An operator redrove it when the submission's grade_by had passed: it has no deadline any more.
    Column("deadline_lifted", Boolean, nullable=False, server_default=text("false")),
    # Of a regrade; null where it is as the submission says.
    Column("priority", Integer),
    # Its grade will not count: it is made to be compared.
    Column("shadow", Boolean, nullable=False, server_default=text("false")),
    id_column("revision_id", nullable=True),
    id_column("regrade_id", nullable=True),
    # Its grade replaces that of a fallback.
    Column("upgrade", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("submission_id", "item_id", name="tasks_pkey"),
    Index(
        "tasks_dead_lettered",
        "tenant",
        "submission_id",
        "item_id",
        postgresql_where=text("state = 2"),
    ),
    Index(
        "tasks_by_regrade",
        "tenant",
        "regrade_id",
        "submission_id",
        "item_id",
        postgresql_where=text("regrade_id IS NOT NULL"),
    ),
    postgresql_with={
        "fillfactor": 90,
        "autovacuum_vacuum_scale_factor": 0,
        "autovacuum_vacuum_threshold": 20000,
        "autovacuum_vacuum_cost_delay": 0,
        "vacuum_truncate": "off",
    },
    info={"moves_by": "submission_id"},
)

grades = Table(
    "grades",
    metadata,
    id_column("submission_id"),
    id_column("item_id"),
    Column("generation", Integer, nullable=False),
    id_column("tenant"),
    Column("score", Double, nullable=False),
    Column("grade", LargeBinary, nullable=False),
    id_column("lease_token"),
    id_column("worker"),
    Column("fence", BigInteger, nullable=False),
    time_column("create_time"),
    # How it came to be; numbers as in the proto. A shadow does not count.
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    # Null where it is the revision of the submission.
    id_column("revision_id", nullable=True),
    id_column("regrade_id", nullable=True),
    # Of a grade that a person should look at: why, and the points of its item. Else null.
    Column("flags", ARRAY(Text)),
    Column("max_score", Double),
    PrimaryKeyConstraint("submission_id", "item_id", "generation", name="grades_pkey"),
    Index(
        "grades_by_regrade",
        "tenant",
        "regrade_id",
        "kind",
        "submission_id",
        "item_id",
        "generation",
        postgresql_where=text("regrade_id IS NOT NULL"),
    ),
    # What closed no task: conservation counts all grades but these.
    Index(
        "grades_without_task",
        "submission_id",
        "item_id",
        postgresql_where=text("generation > 1 AND kind IN (2, 4)"),
    ),
    info={"moves_by": "submission_id"},
)
