"""Items for graders that are not part of the suite."""

from __future__ import annotations

import math
import re

from google.protobuf.struct_pb2 import Struct, Value

from cinnabar.grader.v1.item_pb2 import CustomSpec
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway.item_rules.lists import Violations, criteria

MAX_CONFIG_BYTES = 256 * 1024
_KIND = re.compile(r"[a-z0-9-]{1,40}")


def custom(spec: CustomSpec, points: float, at: str) -> Violations:
    """Every rule that a custom item of ``points`` points breaks."""
    if spec.kind and not _KIND.fullmatch(spec.kind):
        yield FieldViolation(f"{at}.kind", "must be 1 to 40 characters of a-z, 0-9 and -")
    if spec.config.ByteSize() > MAX_CONFIG_BYTES:
        yield FieldViolation(f"{at}.config", f"must be at most {MAX_CONFIG_BYTES} bytes")
    elif not _is_json(spec.config):
        yield FieldViolation(f"{at}.config", "must be JSON: numbers are finite, and nothing is left unset")
    yield from criteria(spec.criteria, points, f"{at}.criteria")


def _is_json(config: Struct) -> bool:
    pending: list[Value] = list(config.fields.values())
    while pending:
        value = pending.pop()
        match value.WhichOneof("kind"):
            case None:
                return False
            case "number_value":
                if not math.isfinite(value.number_value):
                    return False
            case "struct_value":
                pending += value.struct_value.fields.values()
            case "list_value":
                pending += value.list_value.values
            case _:
                pass
    return True
