"""Any message at all of a type, for tests that must not crash."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_TEXTS = (
    *(
        "",
        " ",
        "a",
        "main.py",
        "../x",
        "a/b",
        "(a+)+$",
        "[[a]",
        "(",
        "\\",
        "[1, 2",
        "{}",
        "null",
        "(1,)",
        "search(1)",
    ),
    *(
        "\0",
        "\u202eabc",
        "\U0001f600",
        "\ud7ff",
        "x" * 300,
        "-" * 2000,
        "((((" * 60,
        "a|" * 400,
        "1e999",
        "NaN",
    ),
)
_NUMBERS = (0.0, 1.0, 0.5, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), 1e6, 1e6 + 1)
_WHOLE = (0, 1, -1, 2, 5, 6, 63, 256, 16 << 20, 2**31 - 1, -(2**31))
_REPEATED = 3


def any_message(kind: type[M], chance: random.Random, *, depth: int = 6) -> M:
    """A message whose fields are set or not, well or badly, as ``chance`` has it."""
    message = kind()
    _fill(message, chance, depth)
    return message


def _fill(message: Any, chance: random.Random, depth: int) -> None:
    fields: Sequence[FieldDescriptor] = message.DESCRIPTOR.fields
    for field in fields:
        if chance.random() < 0.3 or (field.message_type is not None and not depth):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            for _ in range(chance.randrange(_REPEATED)):
                _fill(entries[chance.choice(_TEXTS)], chance, depth - 1)
        elif field.is_repeated:
            several = getattr(message, field.name)
            for _ in range(chance.randrange(_REPEATED)):
                if field.message_type is not None:
                    _fill(several.add(), chance, depth - 1)
                else:
                    several.append(_scalar(field, chance))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            _fill(getattr(message, field.name), chance, depth - 1)
        else:
            setattr(message, field.name, _scalar(field, chance))


def _scalar(field: FieldDescriptor, chance: random.Random) -> object:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.choice(_TEXTS).encode()
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice((*_TEXTS, "".join(chance.choices(string.printable, k=12))))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice(_NUMBERS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.randrange(8)
        case _:
            return chance.choice(_WHOLE)
