"""`lexicon.toml`, read once and compiled."""

import re
import tomllib
from importlib import resources
from typing import Any, Final

__all__ = [
    "CHINESE_ENDLESS",
    "CHINESE_FUNCTION",
    "CHINESE_HEADLESS",
    "CHINESE_NEGATION",
    "CHINESE_OPPOSITES",
    "CONDITIONAL",
    "DENIAL",
    "ENGLISH_DENIAL",
    "ENGLISH_FUNCTION",
    "ENGLISH_NEGATION",
    "ENGLISH_OPPOSITES",
    "HEDGED",
    "INSTRUCTING",
    "INSTRUCTIONS",
    "LISTING",
    "NO",
    "OTHER_FUNCTION",
    "PRIVATIVE",
    "REFUSALS",
    "REFUSING",
    "UNFOLLOWED",
    "YES",
]

_ALL: Final[dict[str, dict[str, Any]]] = tomllib.loads(
    resources.files(__package__ or __name__).joinpath("lexicon.toml").read_text("utf-8")
)


def _words(section: str, key: str) -> frozenset[str]:
    return frozenset(str(_ALL[section][key]).split())


def _pairs(section: str) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """Each line is one pair, words of one side | words of the other."""
    lines = str(_ALL["opposites"][section]).strip().splitlines()
    sides = [line.split("|") for line in lines]
    return tuple((frozenset(left.split()), frozenset(right.split())) for left, right in sides)


def _unfollowed() -> dict[str, frozenset[str]]:
    classes = {name: frozenset(str(words).split()) for name, words in _ALL["order"]["classes"].items()}
    found: dict[str, frozenset[str]] = {}
    for name, others in _ALL["order"]["unfollowed"].items():
        after = frozenset[str]().union(*(classes[other] for other in str(others).split()))
        for word in classes[name]:
            found[word] = found.get(word, frozenset()) | after
    return found


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
INSTRUCTING: Final = _words("instructing", "english")
"""One of these words is in everything in English that `INSTRUCTIONS` find."""
REFUSING: Final = re.compile("|".join(_ALL["refusing"].values()), re.IGNORECASE)
"""A clause that says that its writer has no answer."""
DENIAL: Final = _begins(*_ALL["denials"].values())
YES: Final = _begins(_ALL["verdicts"]["yes"])
NO: Final = _begins(_ALL["verdicts"]["no"])
LISTING: Final = re.compile(_ALL["listings"]["any"], re.IGNORECASE)

HEDGED: Final = re.compile("|".join(_ALL["hedged"].values()), re.IGNORECASE)
"""A negation that denies nothing by itself ("not only")."""
CONDITIONAL: Final = re.compile("|".join(_ALL["conditional"].values()), re.IGNORECASE)
"""A sentence that speaks of what is not so."""
ENGLISH_DENIAL: Final = re.compile(_ALL["polarity"]["english_denial"], re.IGNORECASE)
CHINESE_NEGATION: Final = re.compile(_ALL["polarity"]["chinese"])
PRIVATIVE: Final = _words("polarity", "privative")
ENGLISH_OPPOSITES: Final = _pairs("english")
CHINESE_OPPOSITES: Final = _pairs("chinese")
CHINESE_HEADLESS: Final = frozenset(str(_ALL["order"]["chinese_headless"]))
"""Characters that nothing can begin with."""
CHINESE_ENDLESS: Final = frozenset(str(_ALL["order"]["chinese_endless"]))
"""Characters that need something after them."""
UNFOLLOWED: Final = _unfollowed()
"""Words, and what English does not have directly after them."""
