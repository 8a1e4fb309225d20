"""Objects that lie beside the tables."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_EXPAND = (
    """
CREATE TABLE IF NOT EXISTS uploads (
    upload_id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    course text COLLATE "C" NOT NULL,
    assignment text COLLATE "C" NOT NULL,
    item_id text COLLATE "C" NOT NULL,
    author text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    content_type text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 bytea NOT NULL,
    state smallint NOT NULL,
    object_key text COLLATE "C" NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    submission_id text COLLATE "C",
    CONSTRAINT uploads_pkey PRIMARY KEY (upload_id)
)
""",
    "CREATE INDEX IF NOT EXISTS uploads_by_author ON uploads (tenant, author, upload_id)",
    """
CREATE INDEX IF NOT EXISTS uploads_loose ON uploads (expire_time)
WHERE submission_id IS NULL OR state <> 2
""",
)
_CONTRACT = ("DROP TABLE uploads",)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in _EXPAND:
        op.execute(statement)


def downgrade() -> None:
    """Drops them, with what is in them."""
    for statement in _CONTRACT:
        op.execute(statement)
