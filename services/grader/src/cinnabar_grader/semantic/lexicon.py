"""`lexicon.toml`, read once and compiled."""

import re
import tomllib
from importlib import resources
from typing import Any, Final

__all__ = [
    "CHINESE_FUNCTION",
    "DENIAL",
    "ENGLISH_FUNCTION",
    "ENGLISH_NEGATION",
    "INSTRUCTIONS",
    "LISTING",
    "NO",
    "OTHER_FUNCTION",
    "REFUSALS",
    "YES",
]

_ALL: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    resources.files(__package__ or __name__).joinpath("lexicon.toml").read_text("utf-8")
)


def _words(section: str, key: str) -> frozenset[str]:
    return frozenset(str(_ALL[section][key]).split())


def _begins(*patterns: str) -> re.Pattern[str]:
    return re.compile(rf"^\W*(?:(?:答案?|answer) ?[:是]?\W*)?(?:{'|'.join(patterns)})", re.IGNORECASE)


ENGLISH_FUNCTION: Final = _words("english", "function")
ENGLISH_NEGATION: Final = _words("english", "negation")
CHINESE_FUNCTION: Final = frozenset(str(_ALL["chinese"]["function"]))
OTHER_FUNCTION: Final = tuple(_words("other", language) for language in _ALL["other"])
REFUSALS: Final = frozenset(
    phrase.strip()
    for phrases in _ALL["refusals"].values()
    for phrase in re.split(r"[|\n]", phrases)
    if phrase.strip()
)
INSTRUCTIONS: Final = tuple(
    re.compile(pattern, re.IGNORECASE) for patterns in _ALL["instructions"].values() for pattern in patterns
)
DENIAL: Final = _begins(*_ALL["denials"].values())
YES: Final = _begins(_ALL["verdicts"]["yes"])
NO: Final = _begins(_ALL["verdicts"]["no"])
LISTING: Final = re.compile(_ALL["listings"]["any"], re.IGNORECASE)
