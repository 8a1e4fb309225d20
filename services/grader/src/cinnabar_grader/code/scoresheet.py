"""What the tests of one answer came to, and the grade that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cinnabar_grader.code.item import CodeItem, Test
from cinnabar_grader.code.scripts import Results
from cinnabar_grader.code.texts import cut, fitted
from cinnabar_grader.code.verdicts import Judged
from cinnabar_grader.graders import (
    CriterionScore,
    Graded,
    LeaseToken,
    Provenance,
    TestResult,
    TestVerdict,
)
from cinnabar_grader.phrases import phrase
from cinnabar_grader.points import score_of, total_of

COMPILE_ERROR = "COMPILE_ERROR"
FILES_REFUSED = "FILES_REFUSED"
TESTS_NOT_RUN = "TESTS_NOT_RUN"
TEST_BROKEN = "TEST_BROKEN"


class Scoresheet:
    """The tests of one answer, as far as they are finished."""

    def __init__(self, item: CodeItem) -> None:
        self._item = item
        self._judged: dict[str, Judged] = {}

    def add(self, found: Mapping[str, Judged]) -> None:
        """Tests that are finished, by id."""
        self._judged.update(found)

    def finished(self) -> list[TestResult]:
        """Those that are finished, in the order of the item."""
        tests = [test for test in self._item.tests if test.test in self._judged]
        return fitted([self._result(test) for test in tests])

    def graded(self, token: LeaseToken, provenance: Provenance) -> Graded:
        """The grade; tests that are not finished were not run."""
        results = fitted([self._result(test) for test in self._item.tests])
        passed = sum(result.verdict is TestVerdict.ACCEPTED for result in results)
        said = [phrase(self._item.language, "code_passed", passed=passed, count=len(results))]
        missed = sum(result.verdict is TestVerdict.NOT_RUN for result in results)
        if missed:
            said.append(phrase(self._item.language, "code_missed", count=missed))
        return _graded(self._item, token, provenance, results, results, said)

    def nothing(
        self, token: LeaseToken, provenance: Provenance, *, said: str, message: str, flag: str
    ) -> Graded:
        """The grade of an answer that no test was run with: ``message`` stands at every test."""
        judged = Judged(TestVerdict.COMPILE_ERROR, message=cut(message))
        self._judged = {test.test: judged for test in self._item.tests}
        results = fitted([self._result(test) for test in self._item.tests])
        if not results:  # of a script nobody knows the tests before it has run
            alone = TestResult("test-1", judged.verdict, 0.0, self._item.points, message=judged.message)
            graded = _graded(self._item, token, provenance, [alone], (), [said])
        else:
            graded = _graded(self._item, token, provenance, results, results, [said])
        graded.flags = (flag,)
        return graded

    def _result(self, test: Test) -> TestResult:
        found = self._judged.get(test.test)
        if found is None:
            found = Judged(TestVerdict.NOT_RUN, message=phrase(self._item.language, "code_not_run"))
        return TestResult(
            test.test,
            found.verdict,
            score_of(found.share, test.points) if test.points else 0.0,
            test.points,
            title=test.title,
            hidden=test.hidden,
            message=found.message,
            output=found.output,
            signal=found.signal,
            cpu_seconds=found.cpu_seconds,
            wall_seconds=found.wall_seconds,
            memory_bytes=found.memory_bytes,
        )


def graded_by_script(item: CodeItem, token: LeaseToken, provenance: Provenance, results: Results) -> Graded:
    """The grade that a script gave."""
    tests = fitted(results.tests)
    passed = sum(test.verdict is TestVerdict.ACCEPTED for test in tests)
    said = [phrase(item.language, "code_passed", passed=passed, count=len(tests))] if tests else []
    if results.message:
        said.append(results.message)
    graded = _graded(item, token, provenance, tests, tests if results.parts else (), said)
    if not results.parts:
        graded.criteria = [CriterionScore(item.criteria[0].criterion, results.score, item.points)]
        graded.score = results.score
    return graded


def _graded(
    item: CodeItem,
    token: LeaseToken,
    provenance: Provenance,
    tests: Sequence[TestResult],
    parts: Sequence[TestResult],
    said: Sequence[str],
) -> Graded:
    """``parts``: the tests that are criteria; none where the grade has a single one."""
    tongue = item.language
    criteria = [
        CriterionScore(
            part.test,
            part.score,
            part.max_score,
            # Nothing but the verdict: of a hidden test the student reads nothing else.
            phrase(tongue, f"code_{part.verdict.name}"),
        )
        for part in parts
        if part.max_score > 0
    ] or [CriterionScore(item.criteria[0].criterion, 0.0, item.points)]
    broken = any(test.verdict is TestVerdict.INTERNAL for test in tests)
    flags = [TEST_BROKEN] if broken else []
    if any(test.verdict is TestVerdict.NOT_RUN for test in tests):
        flags.append(TESTS_NOT_RUN)
    return Graded(
        token,
        min(item.points, total_of([part.score for part in criteria])),
        item.points,
        criteria,
        phrase(tongue, "gap").join([*said, *([phrase(tongue, "review")] if broken else [])]),
        provenance,
        needs_review=broken,
        flags=flags,
        tests=tests,
    )
