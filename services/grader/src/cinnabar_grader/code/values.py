"""Values that functions of students returned: how they travel out of the sandbox, and how they compare.

The box writes a value as JSON: null, true, false and strings stand for themselves, everything else is an
array that begins with a tag:

    ["i", "-2a"]            whole number, hexadecimal      ["l", …]        list
    ["f", "0.1"]            number, "nan", "inf", "-inf"   ["t", …]        tuple
    ["c", "1.0", "-2.0"]    complex number                 ["s", …]        set
    ["b", "00ff"]           bytes, hexadecimal             ["d", [k, v]…]  dictionary, object
    ["u"]                   undefined                      ["o", type, shown]  anything else

Nothing of it is ever evaluated. What was written by a program that means harm is at worst no value.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

MAX_DEPTH = 64
"""Levels of nesting; what is deeper is no value."""
MAX_PARTS = 200_000
"""Parts of one value."""
_SHOWN_PARTS = 20
_SHOWN_CHARACTERS = 300
_DIGITS = 400  # hexadecimal ones of a number that is shown in full


class NoValue(ValueError):
    """This is no value."""


@dataclass(slots=True, frozen=True)
class Undefined:
    """What a function of JavaScript gives that returns nothing."""


@dataclass(slots=True, frozen=True)
class Other:
    """Something of a type that has no literals. Equals nothing."""

    type: str
    shown: str


@dataclass(slots=True, frozen=True)
class Items:
    """A list or a tuple."""

    tuple: bool
    items: Sequence[Value]


@dataclass(slots=True, frozen=True)
class Members:
    """A set: its members by their keys, see `_key`. So no hash is made of what a student chose."""

    members: Mapping[str, Value]


@dataclass(slots=True, frozen=True)
class Pairs:
    """A dictionary: key and value by the key of the key."""

    pairs: Mapping[str, tuple[Value, Value]]


Value: TypeAlias = (
    "bool | int | float | complex | str | bytes | Undefined | Other | Items | Members | Pairs | None"
)


def decode(text: bytes) -> Value:
    """The value that a box wrote. NoValue when it is none."""
    try:
        return _Reader().value(
            json.loads(text, parse_constant=_refuse, parse_float=_refuse, parse_int=_refuse)
        )
    except NoValue:
        raise
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise NoValue(f"not the form of a value: {type(error).__name__}") from None


def literal(text: str) -> Value:
    """The value of a Python literal. NoValue, which says why, when it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that mean nothing
            tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise NoValue(f"not a Python literal: {type(error).__name__}") from None
    return _Literals().value(tree.body)


def from_json(text: str) -> Value:
    """The value of a JSON text. NoValue, which says why, when it is none."""
    try:
        return _Json().value(json.loads(text, parse_constant=_refuse))
    except NoValue:
        raise
    except (ValueError, RecursionError) as error:
        raise NoValue(f"not JSON: {type(error).__name__}") from None


def equal(found: Value, expected: Value, tolerance: float = 0.0) -> bool:
    """Whether they are the same; numbers may be ``tolerance`` apart.

    A truth value is no number, a list is no tuple, and 1 is 1.0.
    """
    match expected:
        case bool() | None | str() | bytes() | Undefined():
            return type(found) is type(expected) and found == expected
        case int() | float() | complex():
            return (
                isinstance(found, int | float | complex)
                and not isinstance(found, bool)
                and _near(found, expected, tolerance)
            )
        case Items():
            return (
                isinstance(found, Items)
                and found.tuple == expected.tuple
                and len(found.items) == len(expected.items)
                and all(
                    equal(one, other, tolerance)
                    for one, other in zip(found.items, expected.items, strict=True)
                )
            )
        case Members():
            return isinstance(found, Members) and found.members.keys() == expected.members.keys()
        case Pairs():
            return (
                isinstance(found, Pairs)
                and found.pairs.keys() == expected.pairs.keys()
                and all(
                    equal(found.pairs[key][1], value, tolerance) for key, (_, value) in expected.pairs.items()
                )
            )
        case Other():
            return False


def shown(value: Value) -> str:
    """As a person writes it; the beginning of it where it is long."""
    text = _shown(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _near(found: complex, expected: complex, tolerance: float) -> bool:
    if found == expected:
        return True
    try:
        return tolerance > 0 and abs(found - expected) <= tolerance
    except OverflowError:
        return False


def _shown(value: Value) -> str:
    match value:
        case Undefined():
            return "undefined"
        case Other(name, text):
            return text or f"<{name}>"
        case Items(is_tuple, items):
            inside = _few([_shown(item) for item in items[: _SHOWN_PARTS + 1]])
            return f"({inside}{',' if len(items) == 1 else ''})" if is_tuple else f"[{inside}]"
        case Members(members):
            few = [
                _shown(member) for member, _ in zip(members.values(), range(_SHOWN_PARTS + 1), strict=False)
            ]
            return f"{{{_few(few)}}}" if few else "set()"
        case Pairs(pairs):
            few = [
                f"{_shown(key)}: {_shown(one)}"
                for (key, one), _ in zip(pairs.values(), range(_SHOWN_PARTS + 1), strict=False)
            ]
            return f"{{{_few(few)}}}"
        case bool() | None | float() | complex():
            return repr(value)
        case int():
            return repr(value) if abs(value).bit_length() < 4 * _DIGITS else hex(value)
        case str() | bytes():
            return repr(value[:_SHOWN_CHARACTERS])


def _few(parts: Sequence[str]) -> str:
    return ", ".join((*parts[:_SHOWN_PARTS], *(("…",) if len(parts) > _SHOWN_PARTS else ())))


def _key(value: Value) -> str:
    """A text that two keys of a dictionary have in common exactly when they are the same."""
    match value:
        case Undefined() | None | bool():
            return repr(value)
        case str():
            return f"'{value}"
        case bytes():
            return f"b{value.hex()}"
        case int():
            return f"{value:x}"
        case float():
            return f"{int(value):x}" if value.is_integer() else value.hex()
        case complex():
            zero = 0.0  # added, so that there is but one of it
            return f"c{(value.real + zero).hex()},{value.imag.hex()}" if value.imag else _key(value.real)
        case Items(is_tuple, items) if is_tuple:
            return "".join(f"{len(key)}:{key}" for key in map(_key, items)).join("()")
        case Members(members):
            return "".join(f"{len(key)}:{key}" for key in sorted(members)).join("{}")
        case Other(name, text):
            return f"o{len(name)}:{name}{text}"
        case Items() | Pairs():
            raise NoValue("not a key")


class _Counted:
    """Bounds depth and parts of what is read."""

    def __init__(self) -> None:
        self._parts = 0
        self._depth = 0

    def _enter(self) -> None:
        self._parts += 1
        self._depth += 1
        if self._parts > MAX_PARTS or self._depth > MAX_DEPTH:
            raise NoValue("too large or too deep")

    def _leave(self) -> None:
        self._depth -= 1


class _Reader(_Counted):
    """Reads what the box wrote, after JSON."""

    def value(self, raw: object) -> Value:
        self._enter()
        try:
            if raw is None or isinstance(raw, bool | str):
                return raw
            if isinstance(raw, list) and raw:
                tag, *rest = cast(list[object], raw)
                if isinstance(tag, str):
                    return self._tagged(tag, rest)
            raise NoValue("not the form of a value")
        finally:
            self._leave()

    def _tagged(self, tag: str, rest: list[object]) -> Value:
        match tag, rest:
            case "i", [str(digits)]:
                return int(digits, 16)
            case "f", [str(digits)]:
                return float(digits)
            case "c", [str(real), str(imaginary)]:
                return complex(float(real), float(imaginary))
            case "b", [str(digits)]:
                return bytes.fromhex(digits)
            case "u", []:
                return Undefined()
            case "o", [str(name), str(text)]:
                return Other(name, text)
            case "l" | "t", _:
                return Items(tag == "t", [self.value(item) for item in rest])
            case "s", _:
                return Members({_key(member): member for member in map(self.value, rest)})
            case "d", _:
                return Pairs(dict(map(self._pair, rest)))
            case _:
                raise NoValue("not a tag")

    def _pair(self, raw: object) -> tuple[str, tuple[Value, Value]]:
        if not isinstance(raw, list) or len(cast(list[object], raw)) != 2:
            raise NoValue("not a pair")
        key, value = map(self.value, cast(list[object], raw))
        return _key(key), (key, value)


class _Json(_Counted):
    """Reads JSON as such."""

    def value(self, raw: object) -> Value:
        self._enter()
        try:
            if raw is None or isinstance(raw, bool | str | int):
                return raw
            if isinstance(raw, float):
                if not math.isfinite(raw):
                    raise NoValue("a number is too large")
                return raw
            if isinstance(raw, list):
                return Items(tuple=False, items=[self.value(item) for item in cast(list[object], raw)])
            pairs = cast(dict[str, object], raw)
            return Pairs({_key(key): (key, self.value(one)) for key, one in pairs.items()})
        finally:
            self._leave()


class _Literals(_Counted):
    """Reads literals from their syntax."""

    def value(self, node: ast.expr) -> Value:
        self._enter()
        try:
            return self._value(node)
        finally:
            self._leave()

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=value) if value is None or isinstance(
                value, bool | int | float | complex | str | bytes
            ):
                return value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                value = self.value(operand)
                if isinstance(value, int | float | complex) and not isinstance(value, bool):
                    return -value if isinstance(node.op, ast.USub) else value
            case ast.BinOp(op=ast.Add() | ast.Sub(), left=left, right=right):
                real, imaginary = self.value(left), self.value(right)
                if isinstance(real, int | float) and isinstance(imaginary, complex):
                    return real + imaginary if isinstance(node.op, ast.Add) else real - imaginary
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return Items(isinstance(node, ast.Tuple), [self.value(item) for item in items])
            case ast.Set(elts=items):
                return Members({_key(member): member for member in map(self.value, items)})
            case ast.Call(func=ast.Name(id="set"), args=[], keywords=[]):
                return Members({})
            case ast.Dict(keys=keys, values=values):
                pairs: dict[str, tuple[Value, Value]] = {}
                for key, one in zip(keys, values, strict=True):
                    if key is None:
                        raise NoValue("not a Python literal: a dictionary is unpacked")
                    name = self.value(key)
                    pairs[_key(name)] = (name, self.value(one))
                return Pairs(pairs)
            case _:
                pass
        raise NoValue(f"not a Python literal: {type(node).__name__}")


def _refuse(text: str) -> object:
    raise NoValue(f"{text[:20]} is not allowed")
