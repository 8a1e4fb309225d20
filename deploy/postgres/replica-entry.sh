#!/bin/sh
# Copies the primary on first start, then runs Postgres as a hot standby of it. The arguments are Postgres' own.
set -eu
passfile="$(dirname "$PGDATA")/pgpass"
mkdir -p "$(dirname "$PGDATA")"
(umask 077 && echo "$PRIMARY_HOST:5432:*:replicator:$POSTGRES_REPLICATOR_PASSWORD" > "$passfile")
chown postgres:postgres "$(dirname "$PGDATA")" "$passfile"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.partial"
  PGPASSFILE="$passfile" gosu postgres pg_basebackup --pgdata="$PGDATA.partial" --host="$PRIMARY_HOST" \
    --username=replicator --no-password --wal-method=stream --slot=replica --checkpoint=fast
  gosu postgres touch "$PGDATA.partial/standby.signal"
  mv "$PGDATA.partial" "$PGDATA"
fi
exec docker-entrypoint.sh "$@" -c "primary_slot_name=replica" \
  -c "primary_conninfo=host=$PRIMARY_HOST port=5432 user=replicator passfile='$passfile' application_name=replica"
