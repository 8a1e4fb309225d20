"""Checks that many requests have in common."""

from __future__ import annotations

from collections.abc import Iterable

from cinnabar_common.errors import FieldViolation, InvalidRequest


def require(message: object, fields: Iterable[str], path: str = "") -> None:
    if missing := [name for name in fields if not getattr(message, name)]:
        raise InvalidRequest([FieldViolation(path + name, "is required") for name in missing])


def limit_of(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise InvalidRequest([FieldViolation("limit", f"must be 1 to {most}")])
    return limit
