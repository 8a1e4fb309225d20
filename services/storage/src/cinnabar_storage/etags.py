"""The etag of a submission: changes with every change of its grading, and with nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from hashlib import blake2b

from cinnabar_storage.records import Submission

_DIGEST_BYTES = 12
_FORM = "1"  # changes when what goes in does


def etag_of(submission: Submission) -> str:
    """The same, in quotes, from whichever copy of the same state, in any process."""
    return etag_from(
        ((task.item_id, task.generation, task.state) for task in submission.tasks),
        ((grade.item_id, grade.generation) for grade in submission.grades),
    )


def etag_from(tasks: Iterable[tuple[str, int, int]], grades: Iterable[tuple[str, int]]) -> str:
    """From (item, generation, state) of visible tasks, and (item, generation) of the grades that count."""
    state = (_FORM, sorted((item, generation, int(kind)) for item, generation, kind in tasks), sorted(grades))
    digest = blake2b(repr(state).encode(), digest_size=_DIGEST_BYTES).digest()
    return f'"{base64.urlsafe_b64encode(digest).decode()}"'
