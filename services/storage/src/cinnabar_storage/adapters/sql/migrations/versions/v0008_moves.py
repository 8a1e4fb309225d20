"""What moves with its bucket: the guard on the tables that there are by now."""

from alembic import op
from sqlalchemy import text

from cinnabar_storage.adapters.sql.tables import metadata

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_GUARDED_BEFORE = ("assignment_revisions", "assignments", "grades", "submissions", "tasks")
_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")


def _guarded() -> dict[str, str]:
    """The column with the id by table. One of a later release is not there: its migration sees to it."""
    return {
        table.name: table.info["moves_by"]
        for table in metadata.sorted_tables
        if "moves_by" in table.info
        and table.name not in _GUARDED_BEFORE
        and op.get_bind().execute(_EXISTS, {"name": table.name}).scalar_one()
    }


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for table, column in _guarded().items():
        op.execute(f"SELECT attach_bucket_guard('{table}', '{column}')")


def downgrade() -> None:
    """Drops them."""
    for table in _guarded():
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER guard_{table}_{event} ON {table}")
        op.execute(f"DROP FUNCTION guard_{table}")
