"""Overrides and histories, from memory and from the real storage service alike."""

from __future__ import annotations

from uuid import uuid4

import pytest

from cinnabar_common.errors import EtagMismatch, ResourceNotFound
from cinnabar_gateway.records import SubmissionKey
from cinnabar_gateway.review_records import GradingKind, Override
from tests.contract.gateway.test_stores import new_submission
from tests.support.gateway_stores import Backend


def override(key: SubmissionKey, **changes: object) -> Override:
    settings: dict[str, object] = {
        "key": key,
        "item": "q1",
        "score": 2.0,
        "grade": b"by hand",
        "actor": "instructor/ann",
        "reason": "why",
        "etag": "",
        "revision_id": "r2",
    }
    return Override(**(settings | changes))  # pyright: ignore[reportArgumentType]


async def created(backend: Backend) -> SubmissionKey:
    new = new_submission(f"tenant-{uuid4().hex[:8]}")
    await backend.store.create_submissions([new])
    return SubmissionKey(new.tenant, new.submission_id)
