"""What the tables have in common."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, MetaData, Text, text

metadata = MetaData()


def id_column(name: str, *, nullable: bool = False) -> Column[str]:
    """An id, ordered by its bytes."""
    return Column(name, Text(collation="C"), nullable=nullable)


def time_column(name: str) -> Column[object]:
    """A moment; now when none is given."""
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))
