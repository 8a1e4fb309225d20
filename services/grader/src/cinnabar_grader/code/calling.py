"""Calls of functions: what is asked of the harness in the box, and what is made of its answer.

Whatever the answer is, the student's program may have written it. It is compared with a value that never
was in the box, so the only way to be right is to be right.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from cinnabar_grader.code.harness import JAVASCRIPT, PYTHON
from cinnabar_grader.code.item import Call, CodeItem, Test
from cinnabar_grader.code.languages import Language
from cinnabar_grader.code.texts import MAX_TEXT, cut, without_folders
from cinnabar_grader.code.values import NoValue, Other, Value, decode, equal, shown
from cinnabar_grader.code.verdicts import preamble_lines
from cinnabar_grader.graders import TestVerdict
from cinnabar_grader.phrases import phrase

MAX_VALUE = 16 * 1024 * 1024
"""Bytes of one encoded value; what is longer is wrong."""
ENCODED = 8
"""Bytes of an encoded value for each of its literal, at most: "1," becomes ["i", "1"] and a comma."""
BATCH_VALUE = 64 * 1024
"""Bytes of a value of a batch; the test of a longer one is run alone."""
LONGEST_SHARE = 1.0
SHORTEST_SHARE = 0.1
"""Seconds by the clock that one call of a batch may take; one that takes longer is run alone."""


@dataclass(slots=True, frozen=True)
class Returned:
    """A call came to its end."""

    value: Value


@dataclass(slots=True, frozen=True)
class Raised:
    """A call, or the program before it, raised."""

    type: str
    text: str


@dataclass(slots=True, frozen=True)
class NotCompiled:
    """The program is none."""

    text: str


@dataclass(slots=True, frozen=True)
class BrokenCall:
    """The call of the item is no expression."""

    text: str


@dataclass(slots=True, frozen=True)
class Nothing:
    """The program ended before the call did, or wrote something that is no answer."""


Reply: TypeAlias = "Returned | Raised | NotCompiled | BrokenCall | Nothing"


@dataclass(slots=True, frozen=True)
class Request:
    """What is run in the box for calls: source of the harness, and its standard input."""

    source: str
    stdin: bytes
    nonce: bytes = b""


@dataclass(slots=True, frozen=True)
class BatchReply:
    """Of one call of a batch."""

    reply: Reply
    output: bytes
    cpu_seconds: float
    wall_seconds: float


def one(language: Language, call: Call) -> Request:
    """Asks for one call in a run of its own."""
    if language is Language.JAVASCRIPT:
        nonce = secrets.token_hex(16)
        return Request(JAVASCRIPT, json.dumps({"call": call.call, "nonce": nonce}).encode(), nonce.encode())
    return Request(PYTHON, json.dumps({"calls": [["", call.call]], "share": None}).encode())


def many(tests: Sequence[Test], seconds: float) -> Request:
    """Asks for calls of Python, each in a process of its own, within ``seconds`` by the clock together."""
    calls = [
        [str(number), test.form.call] for number, test in enumerate(tests) if isinstance(test.form, Call)
    ]
    share = min(LONGEST_SHARE, max(SHORTEST_SHARE, seconds / len(calls)))
    asked = {"calls": calls, "share": share, "kept": MAX_TEXT, "value": BATCH_VALUE}
    return Request(PYTHON, json.dumps(asked).encode())


def reply(request: Request, stdout: bytes) -> Reply:
    """The answer to a request for one call."""
    if request.nonce:
        _, _, stdout = stdout.partition(b"\n" + request.nonce)
        stdout, _, _ = stdout.partition(b"\n")
    return _reply(stdout)


def replies(tests: Sequence[Test], stdout: bytes) -> Mapping[str, BatchReply]:
    """The answers to a request for many, by test; what is no answer, or not a whole one, is left out."""
    found: dict[str, BatchReply] = {}
    for line in stdout.split(b"\n")[:-1][: len(tests)]:
        try:
            raw = cast(dict[str, Any], json.loads(line))
            test = tests[int(raw["id"])]
            answer = _reply(str(raw["record"]).encode("latin-1"))
            output = base64.b64decode(str(raw["output"]))[:MAX_TEXT]
            times = [float(raw[name]) for name in ("cpu", "wall")]
        except (ValueError, TypeError, LookupError, RecursionError, binascii.Error, UnicodeError):
            continue
        if test.test not in found and not isinstance(answer, Nothing) and all(0 <= t < 1e6 for t in times):
            found[test.test] = BatchReply(answer, output, *times)
    return found


def verdict(answer: Reply, call: Call, item: CodeItem) -> tuple[TestVerdict, str]:
    """Verdict and message of an answer."""
    tongue = item.language
    match answer:
        case Returned(value):
            if equal(value, call.expected, call.tolerance):
                return TestVerdict.ACCEPTED, ""
            kind = value.type if isinstance(value, Other) else ""
            words = {
                "call": cut(call.call, 300),
                "found": shown(value),
                "expected": cut(call.expected_text, 300),
            }
            said = phrase(tongue, "code_returned", **words)
            return TestVerdict.WRONG_ANSWER, f"{said} ({cut(kind, 100)})" if kind else said
        case Raised("MemoryError", _):
            words = {"mib": item.limits.memory_bytes // (1024 * 1024)}
            return TestVerdict.MEMORY_LIMIT, phrase(tongue, "code_memory", **words)
        case Raised(name, text):
            said = phrase(tongue, "code_raised", error=cut(name, 100))
            return (
                TestVerdict.RUNTIME_ERROR,
                f"{said}\n{without_folders(text, preamble_lines(item))}".rstrip(),
            )
        case NotCompiled(text):
            return TestVerdict.COMPILE_ERROR, without_folders(text, preamble_lines(item)).rstrip()
        case BrokenCall():
            return TestVerdict.INTERNAL, phrase(tongue, "code_broken")
        case Nothing():
            return TestVerdict.WRONG_ANSWER, phrase(tongue, "code_no_value")


def _reply(record: bytes) -> Reply:
    if len(record) > MAX_VALUE:
        return Nothing()
    # The value is cut out as it stands and read with limits of its own.
    if record.startswith(b'{"value":') and record.endswith(b"}"):
        try:
            return Returned(decode(record[len(b'{"value":') : -1]))
        except NoValue:
            return Nothing()
    try:
        raw = json.loads(record)
    except (ValueError, RecursionError):
        return Nothing()
    match raw:
        case {"error": [str(name), str(text)]}:
            return Raised(name, text)
        case {"compile": str(text)}:
            return NotCompiled(text)
        case {"broken": str(text)}:
            return BrokenCall(text)
        case _:
            return Nothing()
