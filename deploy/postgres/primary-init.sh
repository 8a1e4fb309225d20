#!/bin/sh
# Runs once, when the primary's data folder is made: roles, the slot of the replica, who may connect.
set -eu
psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres \
  --set=cinnabar="$POSTGRES_CINNABAR_PASSWORD" --set=replicator="$POSTGRES_REPLICATOR_PASSWORD" <<'SQL'
CREATE ROLE cinnabar LOGIN PASSWORD :'cinnabar';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
GRANT pg_monitor TO cinnabar;
CREATE DATABASE cinnabar OWNER cinnabar;
SELECT pg_create_physical_replication_slot('replica', true);
SQL
echo "host replication replicator all scram-sha-256" >> "$PGDATA/pg_hba.conf"
