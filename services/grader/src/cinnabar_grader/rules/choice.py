"""Choice items: options picked from a list.

Without partial credit, exactly the correct set earns all points and anything
else none. With it the fraction is

    right / correct options − wrong / incorrect options, at least 0

so that everything selected, or nothing, earns 0, and guessing earns 0 on average.
"""

from __future__ import annotations

from collections.abc import Collection

from cinnabar_grader.graders import FailureCode, Ungradable
from cinnabar_grader.phrases import Language, phrase
from cinnabar_grader.points import score_of
from cinnabar_grader.rules.judging import RuleGrader, Verdict

VERSION = "1"


class ChoiceRule:
    """Decides choice items. ValueError when the specification makes no sense."""

    slow = False

    def __init__(
        self,
        *,
        points: float,
        options: Collection[str],
        correct: Collection[str],
        partial_credit: bool = False,
        language: Language = Language.ENGLISH,
    ) -> None:
        self.points = points
        self._options = frozenset(options)
        self._correct = frozenset(correct)
        self._incorrect = len(self._options) - len(self._correct)
        self._partial = partial_credit
        self._language = language
        if not self._correct:
            raise ValueError("no option is correct")
        if not self._correct <= self._options:
            raise ValueError("a correct option is not one of the options")
        self._full = Verdict(points, phrase(language, "correct"))
        self._none = Verdict(0.0, phrase(language, "no_answer"))

    def verdict(self, answer: frozenset[str]) -> Verdict:
        """Judges the ids of the selected options. Ungradable when one does not exist."""
        if answer == self._correct:
            return self._full
        if not answer:
            return self._none
        if not answer <= self._options:
            raise Ungradable(FailureCode.INVALID_ARGUMENT, "the answer selects an option that does not exist")
        if not self._partial:
            return Verdict(0.0, phrase(self._language, "choice_inexact"))
        right = len(answer & self._correct)
        wrong = len(answer) - right
        fraction = right / len(self._correct) - (wrong / self._incorrect if wrong else 0.0)
        score = score_of(fraction, self.points)
        return Verdict(
            score,
            phrase(
                self._language,
                "choice_partial" if score else "choice_wrong",
                right=right,
                correct=len(self._correct),
                wrong=wrong,
            ),
        )


def choice_grader() -> RuleGrader[frozenset[str]]:
    """The grader of the queue "choice"."""
    return RuleGrader("choice", version=VERSION, rule=ChoiceRule, answer=frozenset)
