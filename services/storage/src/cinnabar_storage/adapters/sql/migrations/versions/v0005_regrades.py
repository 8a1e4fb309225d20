"""Regrades of many submissions."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_EXPAND = (
    """
    CREATE TABLE IF NOT EXISTS regrades (
        regrade_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        course text COLLATE "C" NOT NULL,
        assignment text COLLATE "C" NOT NULL,
        filter text NOT NULL,
        revision_id text COLLATE "C" NOT NULL,
        shadow boolean NOT NULL,
        reason text NOT NULL,
        actor text COLLATE "C" NOT NULL,
        priority integer NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now(),
        wanted smallint NOT NULL DEFAULT 1,
        decided_by text COLLATE "C" NOT NULL DEFAULT '',
        busy boolean NOT NULL DEFAULT true,
        claimed_until timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT regrades_pkey PRIMARY KEY (regrade_id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS regrades_by_assignment ON regrades (tenant, course, assignment, regrade_id)",
    "CREATE INDEX IF NOT EXISTS regrades_busy ON regrades (claimed_until) WHERE busy",
    """
    CREATE TABLE IF NOT EXISTS regrade_parts (
        regrade_id text COLLATE "C" NOT NULL,
        tenant text COLLATE "C" NOT NULL,
        phase smallint NOT NULL,
        version bigint NOT NULL DEFAULT 0,
        done boolean NOT NULL DEFAULT false,
        submission_id text COLLATE "C" NOT NULL DEFAULT '',
        opened bigint NOT NULL DEFAULT 0,
        skipped bigint NOT NULL DEFAULT 0,
        promoted bigint NOT NULL DEFAULT 0,
        overtaken bigint NOT NULL DEFAULT 0,
        CONSTRAINT regrade_parts_pkey PRIMARY KEY (regrade_id)
    )
    """,
)
# Built while others write. One that was left half made by a migration that died is made anew.
_INDEXES = {
    "tasks_by_regrade": "tasks (tenant, regrade_id, submission_id, item_id) WHERE regrade_id IS NOT NULL",
    "grades_by_regrade": (
        "grades (tenant, regrade_id, kind, submission_id, item_id, generation) WHERE regrade_id IS NOT NULL"
    ),
    "grades_without_task": "grades (submission_id, item_id) WHERE generation > 1 AND kind IN (2, 4)",
}


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)
    with op.get_context().autocommit_block():
        for name, rows in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {rows}")


def downgrade() -> None:
    """Drops them, with what is in them."""
    for name in reversed(_INDEXES):
        op.execute(f"DROP INDEX {name}")
    op.execute("DROP TABLE regrade_parts")
    op.execute("DROP TABLE regrades")
