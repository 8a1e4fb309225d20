"""Statistics of assignments, retention and erasure."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_EXPAND = (
    """
    CREATE INDEX IF NOT EXISTS assignment_revisions_by_assignment
    ON assignment_revisions (tenant, course, assignment, revision_id)
    """,
    """
    CREATE TABLE IF NOT EXISTS submission_scores (
        submission_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        contributions text NOT NULL,
        CONSTRAINT submission_scores_pkey PRIMARY KEY (submission_id)
    )
    """,
    """
    CREATE INDEX IF NOT EXISTS submission_scores_by_bucket
    ON submission_scores ("right"(submission_id, 4), submission_id)
    """,
    """
    CREATE TABLE IF NOT EXISTS assignment_scores (
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        criterion text COLLATE "C" NOT NULL,
        count bigint NOT NULL,
        total numeric NOT NULL,
        squares numeric NOT NULL,
        histogram bigint[] NOT NULL,
        CONSTRAINT assignment_scores_pkey PRIMARY KEY (tenant, course, assignment, item_id, criterion)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS erasures (
        erasure_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        student text COLLATE "C" NOT NULL,
        subject text COLLATE "C" NOT NULL,
        actor text COLLATE "C" NOT NULL,
        reason text NOT NULL,
        submissions bigint NOT NULL DEFAULT 0,
        grades bigint NOT NULL DEFAULT 0,
        objects bigint NOT NULL DEFAULT 0,
        redacted_events bigint NOT NULL DEFAULT 0,
        create_time timestamptz NOT NULL DEFAULT now(),
        complete_time timestamptz,
        claimed_until timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT erasures_pkey PRIMARY KEY (erasure_id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS erasures_open ON erasures (claimed_until) WHERE complete_time IS NULL",
    "CREATE INDEX IF NOT EXISTS audit_redacted ON audit (erasure_id) WHERE erasure_id IS NOT NULL",
    """
    CREATE INDEX IF NOT EXISTS uploads_by_submission ON uploads (submission_id)
    WHERE submission_id IS NOT NULL
    """,
)
_CONTRACT = (
    "DROP INDEX uploads_by_submission",
    "DROP INDEX audit_redacted",
    "DROP TABLE erasures",
    "DROP TABLE assignment_scores",
    "DROP TABLE submission_scores",
    "DROP INDEX assignment_revisions_by_assignment",
)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
