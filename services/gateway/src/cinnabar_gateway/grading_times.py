"""The rules of ``grade_after`` and ``grade_by`` of a submission; times in µs since 1970-01-01 UTC."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar_common.errors import FieldViolation

GRACE_US = 60 * 1_000_000
"""By so much the caller's clock may be behind."""
MAX_AHEAD_US = 400 * 86_400 * 1_000_000
_FUTURE_RULE = "must be in the future"
_AHEAD_RULE = "must be at most 400 days ahead"
TIME_RULE = "must be a time from the year 1 to 9999"
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799  # the range of google.protobuf.Timestamp


def is_time(moment: Timestamp) -> bool:
    """Whether the message holds a time at all."""
    return _MIN_SECONDS <= moment.seconds <= _MAX_SECONDS and 0 <= moment.nanos < 1_000_000_000


def times_of(submission: Submission) -> tuple[int | None, int | None]:
    """``grade_after`` and ``grade_by``, None where there is none. They must be times."""
    return (
        submission.grade_after.ToMicroseconds() if submission.HasField("grade_after") else None,
        submission.grade_by.ToMicroseconds() if submission.HasField("grade_by") else None,
    )


def broken(submission: Submission, now_us: int, at: str) -> Iterator[FieldViolation]:
    """Every rule that is broken whenever it is looked at, with paths below ``at``."""
    sound = True
    for field in ("grade_after", "grade_by"):
        if not submission.HasField(field):
            continue
        moment: Timestamp = getattr(submission, field)
        if not is_time(moment):
            sound = False
            yield FieldViolation(f"{at}.{field}", TIME_RULE)
        elif moment.ToMicroseconds() > now_us + MAX_AHEAD_US:
            yield FieldViolation(f"{at}.{field}", _AHEAD_RULE)
    if sound:
        after_us, by_us = times_of(submission)
        if after_us is not None and by_us is not None and by_us <= after_us:
            yield FieldViolation(f"{at}.grade_by", "must be after grade_after")


def overdue(after_us: int | None, by_us: int | None, now_us: int, at: str) -> Iterator[FieldViolation]:
    """What was right once and is too late now: a repeated request may still get its first answer."""
    for field, moment in (("grade_after", after_us), ("grade_by", by_us)):
        if moment is not None and moment < now_us - GRACE_US:
            yield FieldViolation(f"{at}.{field}", _FUTURE_RULE)
