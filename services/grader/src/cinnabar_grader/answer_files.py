"""Answers that are files and results that are too large for a grade: what is said of them, and to whom.

A file is fetched before its task is graded, so that graders know text only.
"""

from __future__ import annotations

from typing import Protocol

from cinnabar_grader.graders import (
    ANSWER,
    ArchiveAnswer,
    Artifact,
    CriterionScore,
    Failed,
    FailureCode,
    FileAnswer,
    Graded,
    LeaseToken,
    Outcome,
    Provenance,
    StoredArtifact,
    Task,
)
from cinnabar_grader.phrases import Language, phrase

NOT_TEXT = "NOT_TEXT"
"""Flag of a grade: the file is not text in UTF-8."""
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ARTIFACTS = 20
MAX_TITLE = 128


class Author(Protocol):
    """Who is named as the author of grades."""

    @property
    def name(self) -> str:
        """Name in provenance."""
        ...

    @property
    def version(self) -> str:
        """Rises when the same answer could be graded differently."""
        ...


class NotText(Exception):
    """A file is not text in UTF-8, which is its author's affair."""


class Files(Protocol):
    """Where the files of a stream's tasks are, for as long as their leases are held."""

    async def answer(
        self, token: LeaseToken, file: FileAnswer, *, archives: bool = False
    ) -> str | ArchiveAnswer:
        """What a file says; with ``archives`` a zip archive is one.

        NotText; Ungradable (UNAVAILABLE) when it cannot be had now.
        """
        ...

    async def keep(self, token: LeaseToken, artifact: Artifact) -> StoredArtifact:
        """Puts a result away. Ungradable (UNAVAILABLE) when that cannot be done now."""
        ...


def not_text(task: Task, author: Author) -> Outcome:
    """The grade of a file that is not text: nothing, in every part of the rubric."""
    points = getattr(task.item, "points", None)
    if not isinstance(points, float | int):
        return Failed(task.token, FailureCode.INVALID_ARGUMENT, "the item of the task has no points")
    parts = [(part.criterion, part.points) for part in getattr(task.item, "criteria", ())]
    language: Language = getattr(task.item, "language", Language.ENGLISH)
    return Graded(
        task.token,
        0.0,
        points,
        [CriterionScore(name, 0.0, most) for name, most in parts or [(ANSWER, points)]],
        phrase(language, NOT_TEXT),
        Provenance(author.name, author.version),
        flags=(NOT_TEXT,),
    )


def unkeepable(graded: Graded) -> Failed | None:
    """The failure of a grader whose artifacts break a rule; None when they keep to them."""
    artifacts = graded.artifacts
    for wrong, rule in (
        (len(artifacts) > MAX_ARTIFACTS, f"at most {MAX_ARTIFACTS} artifacts"),
        (
            any(not 1 <= len(one.title) <= MAX_TITLE for one in artifacts),
            f"titles of 1 to {MAX_TITLE} characters",
        ),
        (
            any(
                isinstance(one, Artifact) and not 1 <= len(one.content) <= MAX_FILE_BYTES for one in artifacts
            ),
            f"artifacts of 1 to {MAX_FILE_BYTES} bytes",
        ),
    ):
        if wrong:
            return Failed(graded.token, FailureCode.INTERNAL, f"the grader did not keep to {rule}")
    return None
