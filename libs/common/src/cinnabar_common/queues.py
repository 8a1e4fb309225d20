"""Which queue the tasks of an item go to; the rule is that of item.proto."""

from __future__ import annotations

from cinnabar.grader.v1.item_pb2 import CodeSpec, Item

LLM = "llm"
CODE = {
    language: f"code-{CodeSpec.Language.Name(language).lower()}"
    for language in CodeSpec.Language.values()
    if language != CodeSpec.LANGUAGE_UNSPECIFIED
}
"""Queues of programs by the number of their language."""
CUSTOM_PREFIX = "custom-"
KNOWN = ("choice", "numeric", "text", "free-text", LLM, *CODE.values())
"""All but those of custom kinds."""


def queue_of(item: Item) -> str:
    """Name of the queue; empty when the item does not say how it is graded."""
    match item.WhichOneof("grader"):
        case None:
            return ""
        case "free_text":
            return LLM if item.free_text.HasField("llm") else "free-text"
        case "code":
            return CODE.get(item.code.language, "")
        case "custom":
            return CUSTOM_PREFIX + item.custom.kind
        case kind:
            return kind
