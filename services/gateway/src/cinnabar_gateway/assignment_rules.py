"""What an assignment must look like; its items have rules of their own."""

from __future__ import annotations

from collections.abc import Iterator

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway.item_rules import ItemRules, ids
from cinnabar_gateway.required import missing

MAX_ASSIGNMENT_BYTES = 4 * 1024 * 1024
MAX_DISPLAY_NAME = 200
MAX_ITEMS = 200
_TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)  # years 1 to 9999, google.protobuf.Timestamp

Violations = Iterator[FieldViolation]


def assignment_violations(assignment: Assignment, at: str = "assignment") -> Violations:
    """Every rule that ``assignment`` breaks, with paths below ``at``."""
    size = assignment.ByteSize()
    if size > MAX_ASSIGNMENT_BYTES:
        yield FieldViolation(at, f"must be at most {MAX_ASSIGNMENT_BYTES} bytes")
        return
    yield from missing(assignment, at=at)
    if len(assignment.display_name) > MAX_DISPLAY_NAME:
        yield FieldViolation(f"{at}.display_name", f"must be at most {MAX_DISPLAY_NAME} characters")
    if len(assignment.items) > MAX_ITEMS:
        yield FieldViolation(f"{at}.items", f"must be at most {MAX_ITEMS}")
        return
    if assignment.HasField("close_time"):
        first, last = _TIMESTAMP_SECONDS
        time = assignment.close_time
        if not (first <= time.seconds <= last and 0 <= time.nanos < 1_000_000_000):
            yield FieldViolation(f"{at}.close_time", "must be a time in the years 1 to 9999")
    yield from ids([item.item for item in assignment.items], f"{at}.items", "item")
    rules = ItemRules()
    for index, item in enumerate(assignment.items):
        yield from rules.violations(item, f"{at}.items[{index}]")
