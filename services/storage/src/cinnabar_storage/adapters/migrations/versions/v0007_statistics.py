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
)
_CONTRACT = ("DROP INDEX assignment_revisions_by_assignment",)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
