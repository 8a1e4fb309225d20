"""Regrades of many submissions."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_EXPAND = ()
_CONTRACT = ()


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
