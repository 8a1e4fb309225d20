"""Grades that wait for a person; and one index on a submission's author instead of two."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_EXPAND = (
    "ALTER TABLE grades ADD COLUMN IF NOT EXISTS flags text[]",
    "ALTER TABLE grades ADD COLUMN IF NOT EXISTS max_score double precision",
    """
    CREATE TABLE IF NOT EXISTS reviews (
        submission_id text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        generation integer NOT NULL,
        score double precision NOT NULL,
        max_score double precision NOT NULL,
        flags text[] NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT reviews_pkey PRIMARY KEY (submission_id, item_id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS reviews_by_time ON reviews (tenant, create_time, submission_id, item_id)",
    """
    CREATE INDEX IF NOT EXISTS reviews_by_assignment
    ON reviews (tenant, course, assignment, create_time, submission_id, item_id)
    """,
    "SELECT attach_bucket_guard('reviews', 'submission_id')",
)
# Built while others write: the new ones first, so that nothing is without its index.
_NEW = "submissions_of_author ON submissions (tenant, author, request_id)"
_OLD = ("submissions_by_request", "submissions_by_author")
_CONTRACT = (
    "DROP TABLE reviews",
    "DROP FUNCTION guard_reviews",
    "ALTER TABLE grades DROP COLUMN max_score",
    "ALTER TABLE grades DROP COLUMN flags",
    "CREATE INDEX submissions_by_author ON submissions (tenant, author, submission_id)",
    """
    CREATE UNIQUE INDEX submissions_by_request ON submissions (tenant, author, request_id)
    WHERE request_id IS NOT NULL
    """,
    "DROP INDEX submissions_of_author",
)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)
    with op.get_context().autocommit_block():
        # One whose building was cut off is there but not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS submissions_of_author")
        op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {_NEW}")
        for name in _OLD:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
