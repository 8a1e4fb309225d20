"""Short text items: a list of accepted answers, or one pattern."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

import regex

from cinnabar_grader.graders import FailureCode, Ungradable
from cinnabar_grader.phrases import Language, phrase
from cinnabar_grader.rules.judging import RuleGrader, Verdict

VERSION = "1"

QUICK_SECONDS = 0.002
"""A first attempt keeps the interpreter to itself, which is fast; nearly every match ends in it."""
PATTERN_SECONDS = 0.05
"""What a pattern may take. One that needs longer is a fault of the assignment, not of the student:
the task fails, is retried, and ends as a dead letter that says so."""


def normal(text: str) -> str:
    """Unicode NFKC, trimmed, every run of white space one space."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).split())


class TextRule:
    """Decides text items. ValueError when the specification makes no sense.

    A pattern must match the whole answer, either normalized (see `normal`) or only trimmed. Upper
    and lower case are the same unless ``case_sensitive``.
    """

    def __init__(
        self,
        *,
        points: float,
        accepted: Collection[str] = (),
        pattern: str = "",
        case_sensitive: bool = False,
        language: Language = Language.ENGLISH,
    ) -> None:
        if bool(accepted) == bool(pattern):
            raise ValueError("exactly one of accepted and pattern must be given")
        self.points = points
        self.language = language
        self.slow = bool(pattern)
        self._sensitive = case_sensitive
        self._accepted = frozenset(self._key(text) for text in accepted)
        self._pattern: regex.Pattern[str] | None = None
        if pattern:
            try:
                self._pattern = regex.compile(pattern, 0 if case_sensitive else regex.IGNORECASE)
            except (regex.error, OverflowError, RecursionError) as error:
                raise ValueError(f"the pattern is not a regular expression: {error}") from error
        self._right = Verdict(points, phrase(language, "correct"))
        self._wrong = Verdict(0.0, phrase(language, "text_wrong"))
        self._none = Verdict(0.0, phrase(language, "no_answer"))

    def verdict(self, answer: str) -> Verdict:
        """Judges a text. Ungradable when the pattern does not decide within `PATTERN_SECONDS`."""
        if self._pattern is None:
            right = self._key(answer) in self._accepted
        else:
            right = any(_matches(self._pattern, text) for text in {normal(answer), answer.strip()})
        if right:
            return self._right
        return self._wrong if answer and not answer.isspace() else self._none

    def _key(self, text: str) -> str:
        return normal(text) if self._sensitive else normal(normal(text).casefold())


def _matches(pattern: regex.Pattern[str], text: str) -> bool:
    try:
        return pattern.fullmatch(text, timeout=QUICK_SECONDS) is not None
    except TimeoutError:
        pass
    try:
        return pattern.fullmatch(text, timeout=PATTERN_SECONDS, concurrent=True) is not None
    except TimeoutError:
        limit = f"{PATTERN_SECONDS * 1000:.0f} ms"
        raise Ungradable(
            FailureCode.UNKNOWN, f"the pattern of the item cannot decide within {limit}"
        ) from None


def text_grader() -> RuleGrader[str]:
    """The grader of the queue "text"."""
    return RuleGrader("text", version=VERSION, rule=TextRule, answer=str)
