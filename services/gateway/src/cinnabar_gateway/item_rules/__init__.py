"""What the items of an assignment must look like, kind by kind; the rules are those of item.proto."""

from __future__ import annotations

from cinnabar.grader.v1.item_pb2 import Item
from cinnabar_common.errors import FieldViolation
from cinnabar_gateway.item_rules import closed
from cinnabar_gateway.item_rules.backtracking import Budget
from cinnabar_gateway.item_rules.code import Parsing, code
from cinnabar_gateway.item_rules.custom import custom
from cinnabar_gateway.item_rules.free_text import free_text
from cinnabar_gateway.item_rules.lists import MAX_POINTS, Violations, bytes_of_utf8, ids

MAX_PROMPT_BYTES = 64 * 1024


class ItemRules:
    """The rules, for the items of one assignment: what costs time is bounded for all of them together."""

    def __init__(self) -> None:
        self._budget = Budget()
        self._parsing = Parsing()

    def violations(self, item: Item, at: str) -> Violations:
        """Every rule that ``item`` breaks, with paths below ``at``, but for absent required fields."""
        yield from bytes_of_utf8(item.prompt, MAX_PROMPT_BYTES, f"{at}.prompt")
        if not 0 < item.points <= MAX_POINTS:
            yield FieldViolation(f"{at}.points", f"must be more than 0 and at most {MAX_POINTS}")
        match item.WhichOneof("grader"):
            case None:
                yield FieldViolation(at, "must have one of choice, numeric, text, free_text, code, custom")
            case "choice":
                yield from closed.choice(item.choice, f"{at}.choice")
            case "numeric":
                yield from closed.numeric(item.numeric, f"{at}.numeric")
            case "text":
                yield from closed.text(item.text, f"{at}.text", self._budget)
            case "free_text":
                yield from free_text(item.free_text, item.points, f"{at}.free_text")
            case "code":
                yield from code(item.code, item.points, f"{at}.code", self._parsing)
            case "custom":
                yield from custom(item.custom, item.points, f"{at}.custom")


__all__ = ["MAX_PROMPT_BYTES", "ItemRules", "ids"]
