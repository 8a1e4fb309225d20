"""When submissions may be graded, how many tasks they came with, and what operators want of queues.

Only adds: processes of the release before go on reading and writing. What they
write has no ``task_count``; readers derive it then, as the backfill does.
"""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# "IF NOT EXISTS": the backfill commits in parts, so a migration that is stopped begins again here.
_EXPAND = (
    "ALTER TABLE submissions ADD COLUMN IF NOT EXISTS grade_after timestamptz",
    "ALTER TABLE submissions ADD COLUMN IF NOT EXISTS grade_by timestamptz",
    "ALTER TABLE submissions ADD COLUMN IF NOT EXISTS task_count integer",
    "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS deadline_lifted boolean NOT NULL DEFAULT false",
    """
    CREATE TABLE IF NOT EXISTS queue_controls (
        queue text COLLATE "C" NOT NULL,
        state integer NOT NULL,
        actor text COLLATE "C" NOT NULL,
        update_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (queue)
    )
    """,
)
# Parts, so that no row is locked for long: a repeated submission waits for the lock on its first.
# A task is a row of tasks or, once graded, a row of grades; regrades have later generations.
_BACKFILL = text(
    """
    WITH part AS (
        SELECT submission_id FROM submissions
        WHERE submission_id > :after ORDER BY submission_id LIMIT 5000
    ), counted AS (
        UPDATE submissions s SET task_count =
            (SELECT count(*) FROM tasks t
             WHERE t.submission_id = s.submission_id AND t.tenant = s.tenant AND t.generation = 1)
            + (SELECT count(*) FROM grades g
               WHERE g.submission_id = s.submission_id AND g.tenant = s.tenant AND g.generation = 1)
        FROM part WHERE s.submission_id = part.submission_id AND s.task_count IS NULL
    )
    SELECT max(submission_id) FROM part
    """
)


def upgrade() -> None:
    """Adds the columns and the table, then counts the tasks of the submissions that are there."""
    for statement in _EXPAND:
        op.execute(statement)
    with op.get_context().autocommit_block():
        after: str | None = ""
        while after is not None:
            after = op.get_bind().execute(_BACKFILL, {"after": after}).scalar_one()


def downgrade() -> None:
    """Drops them, with what is in them."""
    op.execute("DROP TABLE queue_controls")
    op.execute("ALTER TABLE tasks DROP COLUMN deadline_lifted")
    for column in ("task_count", "grade_by", "grade_after"):
        op.execute(f"ALTER TABLE submissions DROP COLUMN {column}")
