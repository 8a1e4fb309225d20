"""What a grade says in numbers."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from cinnabar.grader.v1.grade_pb2 import Grade
from cinnabar_storage.scoring.records import ScoredCriterion, ScoredItem


def scored(item_id: str, score: float, encoded: bytes) -> ScoredItem:
    """The score of an item and of its criteria, from a serialized ``cinnabar.grader.v1.Grade``."""
    try:
        grade = Grade.FromString(encoded)
    except DecodeError:  # storage keeps what it is given; of this only the score is known
        grade = Grade()
    criteria = tuple(
        ScoredCriterion(one.criterion, one.score, one.max_score) for one in grade.criteria if one.criterion
    )
    return ScoredItem(item_id, score, grade.max_score, criteria)
