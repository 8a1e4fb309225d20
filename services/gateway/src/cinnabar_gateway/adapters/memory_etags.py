"""Etags of submissions in memory."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from cinnabar_gateway.records import Submission


def etag_of(stored: Submission) -> str:
    """In quotes; changes with the tasks and with the grades that count."""
    tasks = sorted((task.item, task.generation, task.state.value) for task in stored.tasks)
    grades = sorted((grade.item, grade.generation) for grade in stored.grades)
    return f'"{blake2b(repr((tasks, grades)).encode(), digest_size=12).hexdigest()}"'


def with_etag(stored: Submission) -> Submission:
    """As a read shows it."""
    return replace(stored, etag=etag_of(stored))
