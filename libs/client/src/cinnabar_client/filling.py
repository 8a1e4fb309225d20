"""Messages from plain data (YAML, JSON): field by field, with a rule for each problem."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from cinnabar.gateway.v1.assignment_service_pb2 import Assignment
from cinnabar_common.errors import FieldViolation

M = TypeVar("M", bound=Message)
_SECONDS = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)s")
_MOST_SECONDS = 315_576_000_000
"""Of a google.protobuf.Duration."""
_INTEGERS = {FieldDescriptor.CPPTYPE_INT32: 2**31, FieldDescriptor.CPPTYPE_INT64: 2**63}
_MADE_BY_SERVICE = {
    Assignment.DESCRIPTOR.full_name: {"name", "revision_id", "etag", "create_time", "update_time"}
}


def filled(message: M, data: Mapping[str, object], path: str, problems: list[FieldViolation]) -> M:
    """Sets the fields of ``message`` that ``data`` names as the proto does; null means not given."""
    ours = _MADE_BY_SERVICE.get(message.DESCRIPTOR.full_name, set())
    fields = {name: f for name, f in message.DESCRIPTOR.fields_by_name.items() if name not in ours}
    for key, value in data.items():
        field = fields.get(key)
        if field is None:
            rule = f"is not a setting; there are {', '.join(fields)}"
            problems.append(FieldViolation(join(path, key), rule))
        elif value is not None:
            _set(message, cast("FieldDescriptor", field), value, join(path, key), problems)
    for oneof in message.DESCRIPTOR.oneofs:
        names = [field.name for field in oneof.fields]
        if sum(data.get(name) is not None for name in names) != 1:
            problems.append(FieldViolation(path, f"must have exactly one of {', '.join(names)}"))
    return message


def _set(
    message: Message, field: FieldDescriptor, value: object, path: str, problems: list[FieldViolation]
) -> None:
    if field.is_repeated:
        if not isinstance(value, list):
            problems.append(FieldViolation(path, "must be a list"))
            return
        target = getattr(message, field.name)
        for index, part in enumerate(cast("list[object]", value)):
            place = f"{path}[{index}]"
            if field.message_type is None:
                converted = _scalar(field, part, place, problems)
                if converted is not None:
                    target.append(converted)
            elif isinstance(part, dict):
                filled(target.add(), keyed(cast("dict[object, object]", part)), place, problems)
            else:
                problems.append(FieldViolation(place, "must be a mapping"))
    elif field.message_type is None:
        converted = _scalar(field, value, path, problems)
        if converted is not None:
            setattr(message, field.name, converted)
    elif (known := _WELL_KNOWN.get(field.message_type.full_name)) is not None:
        known(getattr(message, field.name), value, path, problems)
    elif isinstance(value, dict):
        part = getattr(message, field.name)
        part.SetInParent()
        filled(part, keyed(cast("dict[object, object]", value)), path, problems)
    else:
        problems.append(FieldViolation(path, "must be a mapping"))


def keyed(data: dict[object, object]) -> dict[str, object]:
    return {str(key): value for key, value in data.items()}


def _scalar(
    field: FieldDescriptor, value: object, path: str, problems: list[FieldViolation]
) -> str | float | bool | None:
    match field.cpp_type, value:
        case FieldDescriptor.CPPTYPE_BOOL, bool():
            return value
        case FieldDescriptor.CPPTYPE_DOUBLE, int() | float() if not isinstance(value, bool):
            if math.isfinite(value):
                return float(value)
            rule = "must be a finite number"
        case FieldDescriptor.CPPTYPE_ENUM, str():
            numbers = {one.name: one.number for one in field.enum_type.values} if field.enum_type else {}
            if value.upper() in numbers:
                return numbers[value.upper()]
            rule = f"must be one of {', '.join(name.lower() for name, number in numbers.items() if number)}"
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64, int() if (
            not isinstance(value, bool) and -(limit := _INTEGERS[field.cpp_type]) <= value < limit
        ):
            return value
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64, _:
            rule = "must be a whole number"
        case FieldDescriptor.CPPTYPE_STRING, str():
            return value
        case FieldDescriptor.CPPTYPE_STRING, _:
            rule = "must be a text; put it in quotes"
        case FieldDescriptor.CPPTYPE_BOOL, _:
            rule = "must be true or false"
        case _:
            rule = "must be a number"
    problems.append(FieldViolation(path, rule))
    return None


def _set_duration(target: Duration, value: object, path: str, problems: list[FieldViolation]) -> None:
    match value:
        case int() | float() if not isinstance(value, bool) and abs(value) < _MOST_SECONDS:
            target.FromNanoseconds(int(value * 1e9))
        case str() if _SECONDS.fullmatch(value) and abs(float(value[:-1])) < _MOST_SECONDS:
            target.FromNanoseconds(int(float(value[:-1]) * 1e9))
        case _:
            problems.append(FieldViolation(path, 'must be seconds, such as 2.5 or "2.5s"'))


def _set_struct(target: Struct, value: object, path: str, problems: list[FieldViolation]) -> None:
    if not isinstance(value, dict):
        problems.append(FieldViolation(path, "must be a mapping"))
        return
    target.SetInParent()
    try:
        target.update(cast("dict[str, Any]", keyed(cast("dict[object, object]", value))))
    except (TypeError, ValueError):
        problems.append(FieldViolation(path, "must hold texts, numbers, lists and mappings only"))


def _set_time(target: Timestamp, value: object, path: str, problems: list[FieldViolation]) -> None:
    try:
        moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    except ValueError:
        problems.append(FieldViolation(path, "must be a time such as 2026-05-31T18:00:00+02:00"))
        return
    target.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))


_WELL_KNOWN: Mapping[str, Callable[[Any, object, str, list[FieldViolation]], None]] = {
    Timestamp.DESCRIPTOR.full_name: _set_time,
    Duration.DESCRIPTOR.full_name: _set_duration,
    Struct.DESCRIPTOR.full_name: _set_struct,
}
"""How messages are filled that look like a plain value."""


def join(path: str, field: str) -> str:
    return f"{path}.{field}" if path and field else path or field
