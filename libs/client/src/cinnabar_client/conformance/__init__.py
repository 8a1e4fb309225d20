"""Whether a grader, in whatever language, keeps what the suite promises: run against a live suite."""

from cinnabar_client.conformance.checks import CHECKS, Finding, Subject, examine

__all__ = ["CHECKS", "Finding", "Subject", "examine"]
