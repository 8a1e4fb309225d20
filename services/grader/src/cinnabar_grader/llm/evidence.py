"""Does a quotation occur in the answer?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_LONGEST = 1_000
_SHORTEST = 6
"""Letters and digits from which on a quotation says something; in a short answer half of it does."""


class Quotable:
    """An answer that quotations are looked for in: width, case, white space and punctuation aside."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self._letters, self._places = _letters(answer)

    def found(self, quotations: Sequence[str]) -> tuple[str, ...]:
        """The passages of the answer, word for word, that are quoted."""
        passages: list[str] = []
        for quotation in quotations:
            wanted, _ = _letters(quotation)
            start = self._letters.find(wanted) if self._says_something(wanted) else -1
            if start >= 0:
                first, last = self._places[start], self._places[start + len(wanted) - 1]
                passages.append(self._answer[first : last + 1][:_LONGEST])
        return tuple(dict.fromkeys(passages))

    def _says_something(self, wanted: str) -> bool:
        return len(wanted) >= max(1, min(_SHORTEST, len(self._letters) // 2))


def _letters(text: str) -> tuple[str, list[int]]:
    """Letters, digits and symbols of a text, folded; and for each the place of its character."""
    kept: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for folded in unicodedata.normalize("NFKD", character).casefold():
            if unicodedata.category(folded)[0] in "LNSM":
                kept.append(folded)
                places.append(place)
    return "".join(kept), places
