"""Which buckets a shard owns, a guard over every write, and what a move of a bucket needs.

The guard is a trigger, so it holds whoever writes, processes of the release
before included: they are refused what is not theirs as an error that they take
for a defect, and repeat. As long as a shard knows of no bucket at all the guard
lets everything pass: that is so until ``migrate`` has given out the buckets.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS buckets (
        bucket smallint NOT NULL,
        state smallint NOT NULL,
        epoch bigint NOT NULL,
        term bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (bucket)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS bucket_guard (
        singleton boolean NOT NULL DEFAULT true,
        version bigint NOT NULL,
        moving boolean NOT NULL,
        PRIMARY KEY (singleton)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS bucket_changes (
        change_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        bucket smallint NOT NULL,
        source text COLLATE "C" NOT NULL,
        row_id text COLLATE "C" NOT NULL,
        PRIMARY KEY (bucket, change_id)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS bucket_moves (
        bucket smallint NOT NULL,
        from_shard smallint NOT NULL,
        to_shard smallint NOT NULL,
        step smallint NOT NULL,
        number bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
        actor text COLLATE "C" NOT NULL,
        update_time timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (bucket)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS bucket_control (
        singleton boolean NOT NULL DEFAULT true,
        first_shards smallint NOT NULL,
        epoch bigint NOT NULL,
        term bigint NOT NULL,
        PRIMARY KEY (singleton)
    )
    """,
)
# The last three characters of an id are its bucket.
_BUCKET_OF_ID = """
CREATE OR REPLACE FUNCTION bucket_of_id(id text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || right(id, 3))::bit(12)::integer
"""
# What the guard looks at first, in one row: a number that rises with every
# change of ``buckets``, and whether any bucket is on its way out.
_SUMMARY = (
    """
    CREATE OR REPLACE FUNCTION summarize_buckets() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO bucket_guard AS g (version, moving)
        VALUES (1, EXISTS (SELECT FROM buckets WHERE state IN (2, 3)))
        ON CONFLICT (singleton) DO UPDATE SET version = g.version + 1, moving = excluded.moving;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE OR REPLACE TRIGGER summarize_buckets AFTER INSERT OR UPDATE OR DELETE ON buckets
    FOR EACH STATEMENT EXECUTE FUNCTION summarize_buckets()
    """,
)
# The guard of one table. It takes the shard's lock in common with all other
# writers and looks only then: a mover that holds the lock alone knows that
# whatever was written before is committed, and that whoever writes after sees
# what it says in ``buckets``. READ COMMITTED it must be, or the look would be
# from before the lock. A writer that says which version of ``buckets`` it routed
# by, and is right, need not be checked row by row unless something moves: then
# every row of a bucket that is on its way leaves a note.
_ATTACH = """
CREATE OR REPLACE FUNCTION attach_bucket_guard(guarded text, id_column text) RETURNS void
LANGUAGE plpgsql AS $attach$
DECLARE
    guard text := 'guard_' || guarded;
    event text;
BEGIN
    EXECUTE format($definition$
        CREATE OR REPLACE FUNCTION %1$I() RETURNS trigger LANGUAGE plpgsql AS $guard$
        DECLARE
            known bigint;
            moves boolean;
            worst integer;
        BEGIN
            IF current_setting('cinnabar.mover', true) = 'on' THEN
                RETURN NULL;
            END IF;
            IF current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE EXCEPTION 'writes must be READ COMMITTED' USING ERRCODE = 'CB002';
            END IF;
            PERFORM pg_advisory_xact_lock_shared({lock});
            SELECT version, moving INTO known, moves FROM bucket_guard;
            IF known IS NULL OR (NOT moves AND current_setting('cinnabar.map', true) = known::text) THEN
                RETURN NULL;
            END IF;
            SELECT max(coalesce(b.state, 9)), bool_or(b.state = 2) INTO worst, moves
            FROM (SELECT DISTINCT bucket_of_id(%2$I) AS bucket FROM changed) AS c
            LEFT JOIN buckets b ON b.bucket = c.bucket;
            IF worst > 2 THEN
                RAISE EXCEPTION 'not the owner, or fenced' USING ERRCODE = 'CB001', DETAIL = (
                    SELECT string_agg(DISTINCT c.bucket::text, ',')
                    FROM (SELECT bucket_of_id(%2$I) AS bucket FROM changed) AS c
                    LEFT JOIN buckets b ON b.bucket = c.bucket
                    WHERE coalesce(b.state, 9) > 2
                );
            END IF;
            IF moves AND TG_OP = 'UPDATE' THEN
                INSERT INTO bucket_changes (bucket, source, row_id)
                SELECT b.bucket, TG_TABLE_NAME, c.id
                FROM (SELECT %2$I AS id FROM changed UNION SELECT %2$I FROM before) AS c
                JOIN buckets b ON b.bucket = bucket_of_id(c.id) AND b.state = 2;
            ELSIF moves THEN
                INSERT INTO bucket_changes (bucket, source, row_id)
                SELECT b.bucket, TG_TABLE_NAME, c.id
                FROM (SELECT DISTINCT %2$I AS id FROM changed) AS c
                JOIN buckets b ON b.bucket = bucket_of_id(c.id) AND b.state = 2;
            END IF;
            RETURN NULL;
        END
        $guard$
    $definition$, guard, id_column);
    FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER %s ON %I REFERENCING %s '
            'FOR EACH STATEMENT EXECUTE FUNCTION %I()',
            guard || '_' || lower(event), event, guarded,
            CASE event WHEN 'INSERT' THEN 'NEW TABLE AS changed'
                       WHEN 'UPDATE' THEN 'OLD TABLE AS before NEW TABLE AS changed'
                       ELSE 'OLD TABLE AS changed' END,
            guard
        );
    END LOOP;
END
$attach$
""".replace("{lock}", str(0x6275636B657473))  # "buckets": advisory locks have numbers, not names
_GUARDED = (
    ("submissions", "submission_id"),
    ("tasks", "submission_id"),
    ("grades", "submission_id"),
    ("assignments", "revision_id"),
    ("assignment_revisions", "revision_id"),
)


def upgrade() -> None:
    """Adds them; processes of the release before go on reading and writing."""
    for statement in (*_TABLES, _BUCKET_OF_ID, *_SUMMARY, _ATTACH):
        op.execute(statement)
    for table, column in _GUARDED:
        op.execute(f"SELECT attach_bucket_guard('{table}', '{column}')")


def downgrade() -> None:
    """Drops them, with what is in them."""
    for table, _ in _GUARDED:
        for event in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER guard_{table}_{event} ON {table}")
        op.execute(f"DROP FUNCTION guard_{table}")
    op.execute("DROP FUNCTION attach_bucket_guard")
    op.execute("DROP FUNCTION bucket_of_id")
    op.execute("DROP FUNCTION summarize_buckets CASCADE")
    for table in ("bucket_control", "bucket_moves", "bucket_changes", "bucket_guard", "buckets"):
        op.execute(f"DROP TABLE {table}")
