"""Adapters on Postgres."""
