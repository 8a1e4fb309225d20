"""Cuts lists into messages that fit the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_BYTES = 16 * 1024 * 1024
"""Of payload in one message: a quarter of what a server of the suite accepts."""


def chunks(
    items: Sequence[T], size: Callable[[T], int], *, max_items: int, max_bytes: int = MAX_BYTES
) -> Iterator[Sequence[T]]:
    """Consecutive parts of ``items`` within both bounds; a larger item comes alone."""
    start = total = 0
    for index, item in enumerate(items):
        one = size(item)
        if index > start and (index - start == max_items or total + one > max_bytes):
            yield items[start:index]
            start, total = index, 0
        total += one
    if start < len(items):
        yield items[start:]
