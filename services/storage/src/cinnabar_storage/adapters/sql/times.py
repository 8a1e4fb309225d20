"""Times as Postgres gives them, and as the domain counts them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cinnabar_storage.records import Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(time: datetime) -> Micros:
    """Whole microseconds since the epoch."""
    return Micros((time - _EPOCH) // _MICROSECOND)


def micros_if(time: datetime | None) -> Micros | None:
    """The same, for what may be absent."""
    return None if time is None else micros(time)
