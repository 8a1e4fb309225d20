"""Items that are answered with a free text."""

from __future__ import annotations

from collections.abc import Sequence

from cinnabar.grader.v1.item_pb2 import FreeTextSpec, GradedExample, LlmSpec
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway.item_rules.lists import Violations, bytes_of_utf8, criteria, not_blank

MAX_REFERENCES = 20
MAX_EXAMPLES = 500
MAX_EXAMPLE_BYTES = 64 * 1024
MAX_MODEL = 128
MAX_INSTRUCTIONS_BYTES = 8 * 1024
MAX_SAMPLES = 5


def free_text(spec: FreeTextSpec, points: float, at: str) -> Violations:
    """Every rule that a free-text item of ``points`` points breaks."""
    if len(spec.references) > MAX_REFERENCES:
        yield FieldViolation(f"{at}.references", f"must be 1 to {MAX_REFERENCES}")
    yield from not_blank(spec.references, f"{at}.references")
    yield from criteria(spec.criteria, points, f"{at}.criteria")
    if spec.HasField("llm"):
        yield from _llm(spec.llm, f"{at}.llm")
    yield from _examples(spec.examples, points, f"{at}.examples")


def _llm(spec: LlmSpec, at: str) -> Violations:
    if len(spec.model) > MAX_MODEL:
        yield FieldViolation(f"{at}.model", f"must be at most {MAX_MODEL} characters")
    yield from bytes_of_utf8(spec.instructions, MAX_INSTRUCTIONS_BYTES, f"{at}.instructions")
    if not 0 <= spec.samples <= MAX_SAMPLES:
        yield FieldViolation(f"{at}.samples", f"must be 1 to {MAX_SAMPLES}, or 0 for 1")
    if not 0 <= spec.review_below <= 1:
        yield FieldViolation(f"{at}.review_below", "must be 0 to 1")


def _examples(examples: Sequence[GradedExample], points: float, at: str) -> Violations:
    if len(examples) > MAX_EXAMPLES:
        yield FieldViolation(at, f"must be at most {MAX_EXAMPLES}")
        return
    for index, example in enumerate(examples):
        if example.answer and not example.answer.strip():
            yield FieldViolation(f"{at}[{index}].answer", "must not be blank")
        yield from bytes_of_utf8(example.answer, MAX_EXAMPLE_BYTES, f"{at}[{index}].answer")
        if not 0 <= example.score <= points:
            yield FieldViolation(f"{at}[{index}].score", "must be 0 to the points of the item")
