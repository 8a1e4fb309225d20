"""Field behaviour of requests, enforced from the descriptors (AIP-203).

Only what proto3 can tell apart is enforced here: a REQUIRED message, text,
enumeration or list that is absent. Whether 0 is a fair number is a rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import cast

from google.api import field_behavior_pb2
from google.api.field_behavior_pb2 import FieldBehavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from cinnabar_common.errors import FieldViolation

REQUIRED_RULE = "is required"
_ABSENT_WHEN_DEFAULT = (
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_MESSAGE,
)


def missing(
    message: Message, *, at: str = "", skip: frozenset[str] = frozenset()
) -> Iterator[FieldViolation]:
    """Every REQUIRED field that is absent, below ``at``, in the order of the message.

    Fields that only we set (OUTPUT_ONLY) are not looked into, nor are the paths in ``skip``.
    """
    required, nested = _fields(message.DESCRIPTOR)
    for field in required:
        path = f"{at}.{field.name}" if at else field.name
        if path not in skip and _absent(message, field):
            yield FieldViolation(path, REQUIRED_RULE)
    for field in nested:
        path = f"{at}.{field.name}" if at else field.name
        if path in skip:
            continue
        if field.is_repeated:
            for index, one in enumerate(getattr(message, field.name)):
                yield from missing(one, at=f"{path}[{index}]", skip=skip)
        elif message.HasField(field.name):
            yield from missing(getattr(message, field.name), at=path, skip=skip)


def _absent(message: Message, field: FieldDescriptor) -> bool:
    return not message.HasField(field.name) if field.has_presence else not getattr(message, field.name)


@cache
def _fields(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, ...], tuple[FieldDescriptor, ...]]:
    """(REQUIRED fields that can be absent, message fields to look into)."""
    fields = [field for field in descriptor.fields if FieldBehavior.OUTPUT_ONLY not in _behaviors(field)]
    required = tuple(
        field
        for field in fields
        if FieldBehavior.REQUIRED in _behaviors(field)
        and (field.is_repeated or field.type in _ABSENT_WHEN_DEFAULT)
    )
    nested = tuple(
        field
        for field in fields
        # Well-known types require nothing, and some hold maps.
        if field.message_type is not None and field.message_type.file.package != "google.protobuf"
    )
    return required, nested


def _behaviors(field: FieldDescriptor) -> tuple[int, ...]:
    # The stubs of googleapis-common-protos do not say that the descriptor is an extension handle.
    extensions = cast("Mapping[object, Sequence[int]]", field.GetOptions().Extensions)
    return tuple(extensions[field_behavior_pb2.field_behavior])
