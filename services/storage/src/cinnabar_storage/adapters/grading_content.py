"""The little that storage reads of specs and grades: what a regrade must know of them.

Everything else keeps them as opaque bytes, and so does the domain, which gets
these functions handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.grader.v1.grade_pb2 import Grade
from cinnabar_common.queues import queue_of
from cinnabar_storage.regrading.records import ItemPlan
from cinnabar_storage.regrading.report import GradeParts, Scored


@lru_cache(maxsize=64)
def item_plans(spec: bytes) -> Mapping[str, ItemPlan]:
    """By item of a serialized ``cinnabar.gateway.v1.Assignment``."""
    return {item.item: ItemPlan(queue_of(item), item.points) for item in Assignment.FromString(spec).items}


def grade_parts(grade: bytes) -> GradeParts:
    """The scores in a serialized ``cinnabar.grader.v1.Grade``."""
    message = Grade.FromString(grade)
    return GradeParts(
        Scored(message.score, message.max_score),
        {one.criterion: Scored(one.score, one.max_score) for one in message.criteria},
    )
