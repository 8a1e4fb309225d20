"""Runs migrations on the connection that the caller hands over; there is no offline mode."""

from alembic import context
from sqlalchemy import Connection

from cinnabar_storage.adapters.sql.tables import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
