"""Typed client of Cinnabar: hand in homework, watch it being graded, read the grades."""

from cinnabar_client import render
from cinnabar_client.calibrating import calibrate, graded_examples
from cinnabar_client.client import Client, Redriven, RefusedRedrive
from cinnabar_client.convert import InvalidInput, answers_to, assignment_from, submission_request
from cinnabar_client.errors import ApiError
from cinnabar_client.patience import persist
from cinnabar_client.submitting import SubmitResult
from cinnabar_client.watching import FINAL

__all__ = [
    "FINAL",
    "ApiError",
    "Client",
    "InvalidInput",
    "Redriven",
    "RefusedRedrive",
    "SubmitResult",
    "answers_to",
    "assignment_from",
    "calibrate",
    "graded_examples",
    "persist",
    "render",
    "submission_request",
]
