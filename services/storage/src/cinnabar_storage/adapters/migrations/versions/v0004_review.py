"""Grades by people, grades that do not count, and seals over the audit."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_EXPAND = (
    "ALTER TABLE grades ADD COLUMN IF NOT EXISTS kind smallint NOT NULL DEFAULT 1",
    "ALTER TABLE grades ADD COLUMN IF NOT EXISTS reason text NOT NULL DEFAULT ''",
    'ALTER TABLE grades ADD COLUMN IF NOT EXISTS revision_id text COLLATE "C"',
    'ALTER TABLE grades ADD COLUMN IF NOT EXISTS regrade_id text COLLATE "C"',
    "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS priority integer",
    "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS shadow boolean NOT NULL DEFAULT false",
    'ALTER TABLE tasks ADD COLUMN IF NOT EXISTS revision_id text COLLATE "C"',
    'ALTER TABLE tasks ADD COLUMN IF NOT EXISTS regrade_id text COLLATE "C"',
)
_CONTRACT = (
    "ALTER TABLE tasks DROP COLUMN regrade_id",
    "ALTER TABLE tasks DROP COLUMN revision_id",
    "ALTER TABLE tasks DROP COLUMN shadow",
    "ALTER TABLE tasks DROP COLUMN priority",
    "ALTER TABLE grades DROP COLUMN regrade_id",
    "ALTER TABLE grades DROP COLUMN revision_id",
    "ALTER TABLE grades DROP COLUMN reason",
    "ALTER TABLE grades DROP COLUMN kind",
)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
