"""Grades by people, grades that do not count, and seals over the audit.

Rows of the audit that are there already come first in its commit order: all of
them were committed before the column was added. The indexes of the audit are
built under a lock that lets nobody write. Where that takes too long, because
the audit is large, build them by hand before, CONCURRENTLY and with the columns:
what is there is left as it is.
"""

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
    # A constant is added without touching the rows; those to come take the number of their transaction.
    "ALTER TABLE audit ADD COLUMN IF NOT EXISTS xid bigint NOT NULL DEFAULT 0",
    "ALTER TABLE audit ALTER COLUMN xid SET DEFAULT pg_current_xact_id()::text::bigint",
    "ALTER TABLE audit ADD COLUMN IF NOT EXISTS salt uuid",
    "ALTER TABLE audit ALTER COLUMN salt SET DEFAULT gen_random_uuid()",
    "ALTER TABLE audit ADD COLUMN IF NOT EXISTS redacted_digest bytea",
    'ALTER TABLE audit ADD COLUMN IF NOT EXISTS erasure_id text COLLATE "C"',
    "CREATE INDEX IF NOT EXISTS audit_in_commit_order ON audit (xid, audit_id)",
    "CREATE INDEX IF NOT EXISTS audit_by_submission ON audit (submission_id)",
    """
    CREATE TABLE IF NOT EXISTS audit_followers (
        name text COLLATE "C" NOT NULL,
        xid bigint NOT NULL DEFAULT 0,
        audit_id bigint NOT NULL DEFAULT 0,
        rest_until timestamptz NOT NULL DEFAULT '-infinity',
        CONSTRAINT audit_followers_pkey PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS audit_seals (
        seal bigint NOT NULL,
        first_xid bigint NOT NULL,
        first_audit_id bigint NOT NULL,
        last_xid bigint NOT NULL,
        last_audit_id bigint NOT NULL,
        events integer NOT NULL,
        rows_hash bytea NOT NULL,
        previous_hash bytea NOT NULL,
        hash bytea NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT audit_seals_pkey PRIMARY KEY (seal)
    )
    """,
)
_CONTRACT = (
    "DROP TABLE audit_seals",
    "DROP TABLE audit_followers",
    "DROP INDEX audit_by_submission",
    "DROP INDEX audit_in_commit_order",
    "ALTER TABLE audit DROP COLUMN erasure_id",
    "ALTER TABLE audit DROP COLUMN redacted_digest",
    "ALTER TABLE audit DROP COLUMN salt",
    "ALTER TABLE audit DROP COLUMN xid",
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
