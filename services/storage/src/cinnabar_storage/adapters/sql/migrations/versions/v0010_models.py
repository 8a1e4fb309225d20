"""What was spent on language models, and grades of fallbacks that may be replaced."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_EXPAND = (
    "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS upgrade boolean NOT NULL DEFAULT false",
    """
    CREATE TABLE IF NOT EXISTS upgrades (
        submission_id text COLLATE "C" NOT NULL,
        item_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        generation integer NOT NULL,
        queue text COLLATE "C" NOT NULL,
        revision_id text COLLATE "C",
        opened smallint NOT NULL DEFAULT 0,
        due_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT upgrades_pkey PRIMARY KEY (submission_id, item_id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS upgrades_due ON upgrades (due_time) WHERE opened < 3",
    "SELECT attach_bucket_guard('upgrades', 'submission_id')",
    """
    CREATE TABLE IF NOT EXISTS model_budgets (
        tenant text COLLATE "C" NOT NULL,
        scope text COLLATE "C" NOT NULL,
        period text NOT NULL,
        tokens bigint NOT NULL,
        cost_micros bigint NOT NULL,
        update_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT model_budgets_pkey PRIMARY KEY (tenant, scope)
    )
    """,
)
_CONTRACT = (
    "DROP TABLE model_budgets",
    "DROP TABLE upgrades",
    "DROP FUNCTION guard_upgrades",
    "ALTER TABLE tasks DROP COLUMN upgrade",
)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
