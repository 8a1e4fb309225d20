"""Configuration: one frozen dataclass per service, read once from the environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

C = TypeVar("C")


class ConfigError(Exception):
    """All problems of a configuration at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError(text)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_PARSERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: ("text", str),
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("true or false", _boolean),
    tuple[str, ...]: ("a comma-separated list", _list),
}


def load(kind: type[C], *, prefix: str, env: Mapping[str, str]) -> C:
    """Reads ``kind`` (a dataclass) from ``env``: field ``x`` is ``{prefix}X``.

    Field types: str, int, float, bool, ``tuple[str, ...]``. A value that begins
    with ``file:`` is read from that file, which is how secrets come in.

    Raises:
        ConfigError: with every problem: missing, malformed and unknown variables,
            and the ValueError of the dataclass's own ``__post_init__``.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    hints = get_type_hints(kind)
    names: set[str] = set()
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        variable = prefix + field.name.upper()
        names.add(variable)
        if variable not in env:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(f"{variable} is required")
            continue
        words, parse = _PARSERS[hints[field.name]]
        try:
            values[field.name] = parse(_resolve(env[variable]))
        except OSError as error:
            problems.append(f"{variable}: {error.strerror}")
        except ValueError:
            problems.append(f"{variable}={env[variable]!r} is not {words}")
    problems += [
        f"{name} is not a setting" for name in sorted(env) if name.startswith(prefix) and name not in names
    ]
    if not problems:
        try:
            return kind(**values)
        except ValueError as error:
            problems.append(str(error))
    raise ConfigError(problems)


def _resolve(text: str) -> str:
    if not text.startswith("file:"):
        return text
    with open(text.removeprefix("file:"), encoding="utf-8") as source:
        return source.read().strip()
