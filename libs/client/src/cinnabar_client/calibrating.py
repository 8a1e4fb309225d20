"""Graded examples for an item, from what its teacher has graded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar.gateway.v1.submission_service_pb2 import Submission
from cinnabar.grader.v1.item_pb2 import GradedExample, Item
from cinnabar_client.convert import InvalidInput
from cinnabar_common.errors import FieldViolation

if TYPE_CHECKING:
    from cinnabar_client.client import Client

MIN_EXAMPLES = 10
"""From so many on the grader fits its scale to them."""
MAX_EXAMPLES = 500
"""Examples of an item."""
MAX_ANSWER_BYTES = 64 * 1024


async def graded_examples(
    client: Client, name: str, item: str, *, accepted: Collection[str] = ()
) -> list[GradedExample]:
    """Answers to a free-text item of an assignment with the points that a person gave, newest first.

    They are those whose grade is an override, and those of the submissions named ``accepted``, whose grade
    a person found right as it is. Each answer once, at most 500; blank ones, files and texts over 64 KiB are
    left out. Instructors only. Raises ApiError; InvalidInput when there is no such item.
    """
    points = _item(await client.get_assignment(name), item).points
    found: dict[str, GradedExample] = {}
    async for submission in client.list_submissions(name):
        example = _example(submission, item, points, accepted=submission.name in accepted)
        if example is not None and len(found) < MAX_EXAMPLES:
            found.setdefault(example.answer, example)
    return list(found.values())


async def calibrate(client: Client, name: str, item: str, examples: Collection[GradedExample]) -> Assignment:
    """Makes a new revision of an assignment in which the item has these examples, and no others.

    The answers become part of the revision: instructors can read them there for as long as it exists, also
    after the erasure of who wrote them. Raises ApiError (ABORTED when somebody else changed the assignment
    meanwhile); InvalidInput when there is no such item.
    """
    assignment = await client.get_assignment(name)
    spec = _item(assignment, item).free_text
    del spec.examples[:]
    spec.examples.extend(examples)
    changed = Assignment(name=name, items=assignment.items, etag=assignment.etag)
    return await client.update_assignment(changed, fields=["items"])


def _item(assignment: Assignment, item: str) -> Item:
    found = next((one for one in assignment.items if one.item == item), None)
    if found is None or not found.HasField("free_text"):
        raise InvalidInput([FieldViolation("item", f"{item!r} is not a free-text item of the assignment")])
    return found


def _example(submission: Submission, item: str, points: float, *, accepted: bool) -> GradedExample | None:
    answer = next((one.text for one in submission.answers if one.item == item), "")
    result = next((one for one in submission.results if one.item == item), None)
    if result is None or not result.HasField("grade") or not (result.overridden or accepted):
        return None
    if not answer.strip() or len(answer.encode()) > MAX_ANSWER_BYTES:
        return None
    share = min(1.0, result.grade.score / result.grade.max_score)
    return GradedExample(answer=answer, score=round(share * points, 6))
