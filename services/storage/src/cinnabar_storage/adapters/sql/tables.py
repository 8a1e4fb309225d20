"""The tables of a shard. Migrations make them; this is what they add up to.

There are no foreign keys: each would cost the hot path a lookup and a row lock
on the parent for every row. Rows that belong together are written by one
statement, nothing is deleted but the task that its grade replaces, and so there
is nothing that a foreign key would catch.

Ids are ordered by their bytes, on every server alike, because pages of several
shards are merged by id: hence the collation.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

metadata = MetaData()


def _id(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text(collation="C"), nullable=nullable)


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


assignments = Table(
    "assignments",
    metadata,
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    _id("revision_id"),
    _time("create_time"),
    PrimaryKeyConstraint("tenant", "course", "assignment", name="assignments_pkey"),
    info={"moves_by": "revision_id"},
)

assignment_revisions = Table(
    "assignment_revisions",
    metadata,
    _id("tenant"),
    _id("revision_id"),
    _id("course"),
    _id("assignment"),
    Column("spec", LargeBinary, nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("tenant", "revision_id", name="assignment_revisions_pkey"),
    Index("assignment_revisions_by_assignment", "tenant", "course", "assignment", "revision_id"),
    info={"moves_by": "revision_id"},
)

submissions = Table(
    "submissions",
    metadata,
    _id("submission_id"),
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    _id("revision_id"),
    _id("author"),
    _id("request_id", nullable=True),
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
    _id("submission_id"),
    _id("item_id"),
    _id("tenant"),
    Column("state", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("fence", BigInteger, nullable=False),
    _id("queue"),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _time("update_time"),
    # An operator redrove it when the submission's grade_by had passed: it has no deadline any more.
    Column("deadline_lifted", Boolean, nullable=False, server_default=text("false")),
    # Of a regrade; null where it is as the submission says.
    Column("priority", Integer),
    # Its grade will not count: it is made to be compared.
    Column("shadow", Boolean, nullable=False, server_default=text("false")),
    _id("revision_id", nullable=True),
    _id("regrade_id", nullable=True),
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
    _id("submission_id"),
    _id("item_id"),
    Column("generation", Integer, nullable=False),
    _id("tenant"),
    Column("score", Double, nullable=False),
    Column("grade", LargeBinary, nullable=False),
    _id("lease_token"),
    _id("worker"),
    Column("fence", BigInteger, nullable=False),
    _time("create_time"),
    # How it came to be; numbers as in the proto. A shadow does not count.
    Column("kind", SmallInteger, nullable=False, server_default=text("1")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    # Null where it is the revision of the submission.
    _id("revision_id", nullable=True),
    _id("regrade_id", nullable=True),
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

# Grades that wait for a person: of each item at most one, the newest that counts and asked for it.
reviews = Table(
    "reviews",
    metadata,
    _id("submission_id"),
    _id("item_id"),
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    Column("generation", Integer, nullable=False),
    Column("score", Double, nullable=False),
    Column("max_score", Double, nullable=False),
    Column("flags", ARRAY(Text), nullable=False),
    _time("create_time"),
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
    _id("submission_id"),
    _id("item_id"),
    _id("tenant"),
    # Of the grade.
    Column("generation", Integer, nullable=False),
    _id("queue"),
    # Null where it is the revision of the submission.
    _id("revision_id", nullable=True),
    # Tasks that were opened for the item.
    Column("opened", SmallInteger, nullable=False, server_default=text("0")),
    _time("due_time"),
    PrimaryKeyConstraint("submission_id", "item_id", name="upgrades_pkey"),
    Index("upgrades_due", "due_time", postgresql_where=text("opened < 3")),
    info={"moves_by": "submission_id"},
)

# Regrades of many submissions, each in the bucket of its course.
regrades = Table(
    "regrades",
    metadata,
    _id("regrade_id"),
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    Column("filter", Text, nullable=False),
    # Empty where each submission is graded by its own.
    _id("revision_id"),
    Column("shadow", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    _id("actor"),
    Column("priority", Integer, nullable=False),
    _time("create_time"),
    # What is decided: 1 open its tasks, 2 promote, 3 discard.
    Column("wanted", SmallInteger, nullable=False, server_default=text("1")),
    Column("decided_by", Text(collation="C"), nullable=False, server_default=text("''")),
    # Some part has not done what is wanted yet.
    Column("busy", Boolean, nullable=False, server_default=text("true")),
    _time("claimed_until"),
    PrimaryKeyConstraint("regrade_id", name="regrades_pkey"),
    Index("regrades_by_assignment", "tenant", "course", "assignment", "regrade_id"),
    Index("regrades_busy", "claimed_until", postgresql_where=text("busy")),
    info={"moves_by": "regrade_id"},
)

# How far this shard is with a regrade; stays on its shard, whatever moves.
regrade_parts = Table(
    "regrade_parts",
    metadata,
    _id("regrade_id"),
    _id("tenant"),
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

# Files that lie beside the tables. Answers are attached by the transaction that creates
# their submission, artifacts are born with one. What is loose is collected.
uploads = Table(
    "uploads",
    metadata,
    _id("upload_id"),
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    _id("item_id"),
    _id("author"),
    Column("kind", SmallInteger, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("state", SmallInteger, nullable=False),
    _id("object_key"),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    _id("submission_id", nullable=True),
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
    _id("submission_id"),
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    Column("contributions", Text, nullable=False),
    PrimaryKeyConstraint("submission_id", name="submission_scores_pkey"),
    Index("submission_scores_by_bucket", text('"right"(submission_id, 4)'), "submission_id"),
)

# Sums over the submissions of this shard, in millionths of a point; whole numbers, so that nothing is left
# when all is taken away again. Of the item "" are whole submissions.
assignment_scores = Table(
    "assignment_scores",
    metadata,
    _id("tenant"),
    _id("course"),
    _id("assignment"),
    _id("item_id"),
    _id("criterion"),
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
    _id("erasure_id"),
    _id("tenant"),
    _id("student"),
    _id("subject"),
    _id("actor"),
    Column("reason", Text, nullable=False),
    Column("submissions", BigInteger, nullable=False, server_default=text("0")),
    Column("grades", BigInteger, nullable=False, server_default=text("0")),
    Column("objects", BigInteger, nullable=False, server_default=text("0")),
    Column("redacted_events", BigInteger, nullable=False, server_default=text("0")),
    _time("create_time"),
    Column("complete_time", DateTime(timezone=True)),
    _time("claimed_until"),
    PrimaryKeyConstraint("erasure_id", name="erasures_pkey"),
    Index("erasures_open", "claimed_until", postgresql_where=text("complete_time IS NULL")),
    info={"moves_by": "erasure_id"},
)

# What operators want of queues, which span the shards: only the table of shard 0 is used.
queue_controls = Table(
    "queue_controls",
    metadata,
    _id("queue"),
    Column("state", Integer, nullable=False),
    _id("actor"),
    _time("update_time"),
    PrimaryKeyConstraint("queue", name="queue_controls_pkey"),
)

# What tenants have spent on language models; only the table of shard 0 is used.
model_budgets = Table(
    "model_budgets",
    metadata,
    _id("tenant"),
    _id("scope"),
    Column("period", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    _time("update_time"),
    PrimaryKeyConstraint("tenant", "scope", name="model_budgets_pkey"),
)

# Stays on its shard when a bucket moves.
audit = Table(
    "audit",
    metadata,
    # Numbers are taken in blocks, so they order the rows of one connection only.
    Column("audit_id", BigInteger, Identity(always=True, cache=64), nullable=False),
    _time("at"),
    _id("tenant"),
    _id("actor"),
    _id("action"),
    _id("submission_id"),
    _id("item_id"),
    Column("generation", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    # Of the transaction that wrote it: followers read in this order. 0 for rows older than the column.
    Column("xid", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    # Goes into the digest of the texts, so that nobody finds out by guessing what was erased.
    Column("salt", Uuid, server_default=text("gen_random_uuid()")),
    # Of the texts that were here before they were erased, and the erasure.
    Column("redacted_digest", LargeBinary),
    _id("erasure_id", nullable=True),
    PrimaryKeyConstraint("audit_id", name="audit_pkey"),
    Index("audit_in_commit_order", "xid", "audit_id"),
    Index("audit_by_submission", "submission_id"),
    Index("audit_redacted", "erasure_id", postgresql_where=text("erasure_id IS NOT NULL")),
)

# How far each follower has read the audit of this shard, and until when it rests.
audit_followers = Table(
    "audit_followers",
    metadata,
    _id("name"),
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
    _time("create_time"),
    PrimaryKeyConstraint("seal", name="audit_seals_pkey"),
)

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
    _id("source"),
    _id("row_id"),
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
    _id("actor"),
    _time("update_time"),
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
