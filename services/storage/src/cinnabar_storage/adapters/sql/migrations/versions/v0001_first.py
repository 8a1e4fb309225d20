"""Assignments, submissions, tasks, grades and audit."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE assignments (
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        revision_id text COLLATE "C" NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, course, assignment)
    )
    """,
    """
    CREATE TABLE assignment_revisions (
        tenant text COLLATE "C" NOT NULL,
        revision_id text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        spec bytea NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, revision_id)
    )
    """,
    """
    CREATE TABLE submissions (
        submission_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        revision_id text COLLATE "C" NOT NULL,
        author text COLLATE "C" NOT NULL,
        request_id text COLLATE "C",
        fingerprint bytea NOT NULL,
        priority integer NOT NULL,
        answers bytea NOT NULL,
        max_score double precision NOT NULL,
        create_time timestamptz NOT NULL,
        PRIMARY KEY (submission_id)
    )
    """,
    "CREATE INDEX submissions_by_assignment ON submissions (tenant, course, assignment, submission_id)",
    "CREATE INDEX submissions_by_author ON submissions (tenant, author, submission_id)",
    """
    CREATE UNIQUE INDEX submissions_by_request ON submissions (tenant, author, request_id)
    WHERE request_id IS NOT NULL
    """,
    """
    CREATE TABLE tasks (
        submission_id text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        state smallint NOT NULL,
        generation integer NOT NULL,
        fence bigint NOT NULL,
        queue text COLLATE "C" NOT NULL,
        reason text NOT NULL DEFAULT '',
        attempts integer NOT NULL DEFAULT 0,
        update_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (submission_id, item_id)
    ) WITH (
        fillfactor = 90,
        autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off
    )
    """,
    "CREATE INDEX tasks_dead_lettered ON tasks (tenant, submission_id, item_id) WHERE state = 2",
    """
    CREATE TABLE grades (
        submission_id text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        generation integer NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        score double precision NOT NULL,
        grade bytea NOT NULL,
        lease_token text COLLATE "C" NOT NULL,
        worker text COLLATE "C" NOT NULL,
        fence bigint NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (submission_id, item_id, generation)
    )
    """,
    """
    CREATE TABLE audit (
        audit_id bigint GENERATED ALWAYS AS IDENTITY (CACHE 64) PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        tenant text COLLATE "C" NOT NULL,
        actor text COLLATE "C" NOT NULL,
        action text COLLATE "C" NOT NULL,
        submission_id text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        generation integer NOT NULL,
        detail text NOT NULL
    )
    """,
)


def upgrade() -> None:
    """Makes all tables."""
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    """Drops all tables, with everything in them."""
    for table in ("audit", "grades", "tasks", "submissions", "assignment_revisions", "assignments"):
        op.execute(f"DROP TABLE {table}")
