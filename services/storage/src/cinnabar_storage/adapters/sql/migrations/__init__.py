"""Alembic's environment: applied to every shard alike, expand first and contract later."""
