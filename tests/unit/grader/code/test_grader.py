"""From runs to grades, without a box."""

import json
from collections.abc import Sequence

import pytest

from cinnabar_grader.code.checkers import Exact, Numbers, Program
from cinnabar_grader.code.grader import CodeGrader
from cinnabar_grader.code.item import Script, ScriptForm
from cinnabar_grader.code.languages import Language, toolchains
from cinnabar_grader.graders import (
    BrokenItem,
    CodeAnswer,
    FailureCode,
    LeaseToken,
    NumberAnswer,
    Progress,
    Task,
    TestVerdict,
    Ungradable,
)
from cinnabar_grader.phrases import Language as Tongue
from cinnabar_grader.sandbox import Ending, Run
from tests.support.grader_programs import (
    PYTHON,
    Order,
    PlayedSandbox,
    calls,
    exited,
    grade,
    item,
    stdio,
    verdicts,
)

A, W, N = TestVerdict.ACCEPTED, TestVerdict.WRONG_ANSWER, TestVerdict.NOT_RUN


def adding(order: Order) -> Run:
    """What a program that adds does."""
    if order.stdin and not order.stdin.startswith(b"{"):
        return exited(b"%d\n" % sum(map(int, order.stdin.split())), cpu_seconds=0.5, wall_seconds=1.0)
    return exited()


def instead(run: Run, *, at: bytes) -> PlayedSandbox:
    """A sandbox of `adding` where the program comes to ``run`` on the input ``at``."""
    return PlayedSandbox(lambda order: run if order.stdin == at else adding(order))


async def test_all_tests_pass() -> None:
    reports: list[Progress] = []
    found = await grade(PlayedSandbox(adding), item(stdio()), "…", reports=reports)
    assert (found.score, found.max_score, verdicts(found.tests)) == (3, 3, [A, A, A])
    assert [(part.criterion, part.score, part.feedback) for part in found.criteria] == [
        ("sum-1", 1, "Passed."),
        ("sum-2", 1, "Passed."),
        ("sum-3", 1, "Passed."),
    ]
    assert (found.feedback, found.needs_review, found.flags) == ("3 of 3 tests passed.", False, [])
    assert found.provenance.grader == "code"
    assert (found.tests[0].cpu_seconds, found.tests[0].output) == (0.5, "3\n")
    assert sorted(len(report.tests) for report in reports) == [1, 2, 3]
    assert [test.test for test in reports[-1].tests] == ["sum-1", "sum-2", "sum-3"]


@pytest.mark.parametrize(
    ("run", "verdict", "message", "signal"),
    [
        (exited(b"8"), W, "The output first differs in line 1: expected “9”, found “8”.", ""),
        (exited(b""), W, "The output first differs in line 1: expected “9”, found nothing.", ""),
        (exited(b"9\n9"), W, "The output first differs in line 2: expected nothing, found “9”.", ""),
        (exited(b"\xff9"), W, "expected “9”, found “�9”", ""),
        (exited(code=3, stderr=b"oops"), TestVerdict.RUNTIME_ERROR, "exit code 3.\noops", ""),
        (
            exited(code=1, stderr=b'File "/box/main.py", line 2\nMemoryError\n'),
            TestVerdict.MEMORY_LIMIT,
            "more memory than the 256 MiB",
            "",
        ),
        (Run(ending=Ending.SIGNALED, signal=11), TestVerdict.RUNTIME_ERROR, "ended by SIGSEGV", "SIGSEGV"),
        (Run(ending=Ending.TIME_LIMIT), TestVerdict.TIME_LIMIT, "may compute for 5 s and take 11 s", ""),
        (Run(ending=Ending.MEMORY_LIMIT), TestVerdict.MEMORY_LIMIT, "256 MiB", ""),
        (Run(ending=Ending.OUTPUT_LIMIT), TestVerdict.OUTPUT_LIMIT, "wrote more than it may", ""),
        (Run(ending=Ending.FORBIDDEN), TestVerdict.FORBIDDEN, "tried what no program may", ""),
    ],
)
async def test_each_ending_has_its_verdict(run: Run, verdict: TestVerdict, message: str, signal: str) -> None:
    found = await grade(instead(run, at=b"4 5"), item(stdio()), "…")
    assert (found.score, verdicts(found.tests)) == (2, [A, verdict, A])
    assert message in found.tests[1].message
    assert found.tests[1].signal == signal
    assert not found.needs_review
    assert "9" not in found.criteria[1].feedback + found.feedback


async def test_students_read_their_own_language() -> None:
    found = await grade(instead(exited(b"8"), at=b"4 5"), item(stdio(), tongue=Tongue.CHINESE), "…")
    assert found.feedback == "3 个测试通过 2 个。"
    assert "应为“9”，实为“8”" in found.tests[1].message


async def test_a_box_that_fails_is_no_fault_of_the_student() -> None:
    sandbox = instead(Run(ending=Ending.FAILED, reason="no room"), at=b"4 5")
    with pytest.raises(Ungradable, match="no room") as caught:
        await grade(sandbox, item(stdio()), "…")
    assert caught.value.code is FailureCode.INTERNAL

    def away(order: Order) -> Run:
        raise ConnectionError("gone")

    with pytest.raises(Ungradable) as caught:
        await grade(PlayedSandbox(away), item(stdio()), "…")
    assert caught.value.code is FailureCode.UNAVAILABLE


async def test_what_there_is_no_time_for_is_not_run() -> None:
    found = await grade(PlayedSandbox(adding), item(stdio()), "…", task_seconds=1.5)
    assert sorted(verdicts(found.tests)) == [A, A, N]
    assert (found.score, found.flags) == (2, ["TESTS_NOT_RUN"])
    assert "1 were not run" in found.feedback


async def test_a_program_that_does_not_compile_runs_no_test() -> None:
    def broken(order: Order) -> Run:
        return exited(stderr=b'File "/box/main.py", line 7\nSyntaxError: what\n', code=1)

    sandbox = PlayedSandbox(broken)
    found = await grade(sandbox, item(stdio(), preamble="import a\nimport b\n"), "def f(:")
    assert verdicts(found.tests) == [TestVerdict.COMPILE_ERROR] * 3
    assert found.tests[0].message == 'File "main.py", line 5\nSyntaxError: what'
    assert (found.score, found.flags) == (0, ("COMPILE_ERROR",))
    assert found.feedback == "The program does not compile."
    assert len(sandbox.orders) == 1
    assert sandbox.orders[0].files["main.py"] == b"import a\nimport b\ndef f(:"


async def test_a_compiler_that_is_stopped() -> None:
    sandbox = PlayedSandbox(lambda order: Run(ending=Ending.TIME_LIMIT))
    found = await grade(sandbox, item(stdio(), Language.CPP), "template …")
    assert verdicts(found.tests) == [TestVerdict.COMPILE_ERROR] * 3
    assert "takes too much to compile" in found.tests[0].message


async def test_files_of_students_that_cannot_be_used() -> None:
    sandbox = PlayedSandbox(adding)
    for answer, word in (
        ("  ", "No answer"),
        (CodeAnswer({"other.py": "x"}), "main.py"),
        (CodeAnswer({"../main.py": "x"}), "not allowed"),
    ):
        found = await grade(sandbox, item(stdio()), answer)
        assert (found.score, found.flags) == (0, ("FILES_REFUSED",))
        assert word in found.feedback
        assert word in found.tests[0].message
    assert not sandbox.orders


async def test_files_of_the_item_are_there() -> None:
    sandbox = PlayedSandbox(adding)
    asked = item(stdio(), files={"main.py": b"import work", "data.txt": b"1"})
    await grade(sandbox, asked, CodeAnswer({"main.py": "cheat", "work.py": "x"}))
    assert dict(sandbox.orders[0].files) == {"main.py": b"import work", "data.txt": b"1", "work.py": b"x"}


@pytest.mark.parametrize(
    ("answer", "asked", "code"),
    [
        (None, item(stdio()), FailureCode.INVALID_ARGUMENT),
        (NumberAnswer(1), item(stdio()), FailureCode.INVALID_ARGUMENT),
        ("x", item(stdio(), Language.C), FailureCode.INVALID_ARGUMENT),
        ("x", BrokenItem("no tests"), FailureCode.FAILED_PRECONDITION),
        ("x", None, FailureCode.INTERNAL),
    ],
)
async def test_tasks_that_make_no_sense(
    answer: str | NumberAnswer | None, asked: object, code: FailureCode
) -> None:
    grader = CodeGrader(toolchains(PYTHON)[Language.PYTHON], PlayedSandbox(adding))
    with pytest.raises(Ungradable) as caught:
        await grader.grade(Task(LeaseToken("x"), grader.queue, asked, answer), lambda progress: None)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("check", "verdict", "score", "review"),
    [
        (exited(b"1\n"), A, 1, False),
        (exited(b"0.25\nsome\n"), A, 0.25, False),
        (exited(b"0\nno\n"), W, 0, False),
        (exited(b"all\n"), TestVerdict.INTERNAL, 0, True),
        (exited(b"2\n"), TestVerdict.INTERNAL, 0, True),
        (exited(b"1\n", code=1), TestVerdict.INTERNAL, 0, True),
        (Run(ending=Ending.TIME_LIMIT), TestVerdict.INTERNAL, 0, True),
    ],
)
async def test_checkers_that_are_programs(
    check: Run, verdict: TestVerdict, score: float, review: bool
) -> None:
    def play(order: Order) -> Run:
        if "checker.py" in order.files:
            assert set(order.files) == {"checker.py", "input", "expected", "output"}
            assert order.files["output"].split() == order.files["expected"].split()
            return check
        return adding(order)

    asked = item(stdio(checker=Program("…"))[:1])
    found = await grade(PlayedSandbox(play), asked, "…")
    assert (found.score, verdicts(found.tests), found.needs_review) == (score, [verdict], review)
    assert ("A person will look" in found.feedback, "TEST_BROKEN" in found.flags) == (review, review)


async def test_expected_outputs_never_enter_the_box() -> None:
    sandbox = PlayedSandbox(adding)
    tests = [*stdio(checker=Exact()), *calls(Language.PYTHON, ("f(1)", "'secret-1'"), ("f(2)", "'secret-2'"))]
    await grade(sandbox, item(tests), "…")
    everything = repr(sandbox.orders)
    assert "f(1)" in everything
    assert "secret" not in everything


def batch(values: Sequence[object], *, junk: bytes = b"") -> PlayedSandbox:
    """A sandbox where the calls of a batch give these values, None for no answer; alone each gives 7."""

    def play(order: Order) -> Run:
        request = json.loads(order.stdin)
        if request["share"] is None:
            return exited(b'{"value": ["i", "7"]}', stderr=b"printed")
        lines = [
            {"id": number, "record": json.dumps(values[int(call)]), "output": "aGk=", "cpu": 0.1, "wall": 0.2}
            for number, call in request["calls"]
            if values[int(call)] is not None
        ]
        return exited(b"".join(json.dumps(line).encode() + b"\n" for line in lines) + junk)

    return PlayedSandbox(play)


def seven(index: int) -> tuple[str, str]:
    return str(index), "7"


async def test_calls_that_end_cleanly_share_a_run() -> None:
    error = {"error": ["ValueError", "ValueError: x"]}
    sandbox = batch([{"value": ["i", "7"]}, {"value": ["i", "8"]}, error])
    found = await grade(sandbox, item(calls(Language.PYTHON, *map(seven, range(3)))), "…")
    assert verdicts(found.tests) == [A, W, TestVerdict.RUNTIME_ERROR]
    assert found.tests[1].message == "1 gave 8, expected was 7."
    assert found.tests[2].message == "The program ended with ValueError.\nValueError: x"
    assert (found.tests[0].output, found.tests[0].wall_seconds) == ("hi", 0.2)
    assert len(sandbox.orders) == 1


async def test_calls_that_do_not_are_run_alone() -> None:
    junk = b'{"id": "0"}\n[]\n{{{\n9'
    sandbox = batch([{"value": ["i", "7"]}, None, {"value": "no value", "or": 1}], junk=junk)
    found = await grade(sandbox, item(calls(Language.PYTHON, *map(seven, range(3)))), "…")
    assert verdicts(found.tests) == [A, A, A]
    assert (found.tests[1].output, len(sandbox.orders)) == ("printed", 3)


async def test_hidden_calls_are_never_beside_others() -> None:
    sandbox = batch([{"value": ["i", "7"]}] * 4)
    shown = calls(Language.PYTHON, *map(seven, range(2)))
    hidden = [
        type(test)(f"hidden-{number}", 1, test.form, hidden=True)
        for number, test in enumerate(calls(Language.PYTHON, *map(seven, (2, 3))))
    ]
    found = await grade(sandbox, item([*shown, *hidden]), "…")
    assert found.score == 4
    runs = [sorted(call for _, call in json.loads(order.stdin)["calls"]) for order in sandbox.orders]
    assert sorted(runs) == [["0", "1"], ["2", "3"]]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (b"", W),
        (b"7", W),
        (b'{"value": ["i", "8"]}', W),
        (b'{"value": ["i", "7"]} and more', W),
        (b'{"value": 7}', W),
        (b'{"value": ["i", "7"], "verdict": "ACCEPTED"}', W),
        (b'{"error": ["MemoryError", ""]}', TestVerdict.MEMORY_LIMIT),
        (b'{"error": "x"}', W),
        (b'{"error": ["' + b"E" * 5000 + b'", "\\ud800"]}', TestVerdict.RUNTIME_ERROR),
        (b"[" * 50_000, W),
        (b'{"value": ["i", "7"]}', A),
    ],
)
async def test_what_comes_out_of_a_box_is_never_believed(said: bytes, verdict: TestVerdict) -> None:
    [test] = calls(Language.PYTHON, ("f()", "7" if verdict is A else "9"))
    found = await grade(PlayedSandbox(lambda order: exited(said)), item([test]), "…")
    assert verdicts(found.tests) == [verdict]
    for result in found.tests:
        assert len(result.message.encode()) <= 4096


async def test_too_much_that_is_printed_by_a_call() -> None:
    [test] = calls(Language.PYTHON, ("f()", "7"))
    sandbox = PlayedSandbox(lambda order: exited(b'{"value": ["i", "7"]}', stderr=b"x" * 101))
    found = await grade(sandbox, item([test], output_bytes=100), "…")
    assert verdicts(found.tests) == [TestVerdict.OUTPUT_LIMIT]


async def test_a_grade_stays_small_whatever_is_printed() -> None:
    tests = [
        type(test)(f"t-{number}", 1, test.form)
        for number in range(200)
        for test in stdio(checker=Numbers())[:1]
    ]
    sandbox = PlayedSandbox(lambda order: exited("界".encode() * 5000, stderr=b"x"))
    reports: list[Progress] = []
    found = await grade(sandbox, item(tests), "…", reports=reports)
    for results in (found.tests, reports[-1].tests):
        assert len(results) == 200
        assert sum(len(test.message.encode()) + len(test.output.encode()) for test in results) <= 128 * 1024
        assert len(results[0].output.encode()) <= 4096
        assert results[0].output.endswith("界…")


def scripted(run: Run) -> PlayedSandbox:
    return PlayedSandbox(lambda order: run)


SCRIPT = Script({"run.py": b"run()"}, ("python3", "run.py"), ScriptForm.GRADESCOPE)


def results(found: object) -> dict[str, bytes]:
    return {"results/results.json": json.dumps(found).encode()}


async def test_a_script_gives_the_points() -> None:
    tests = [{"name": "one", "score": 1, "max_score": 2}, {"score": 0, "max_score": 2}]
    sandbox = scripted(exited(files=results({"tests": tests})))
    found = await grade(sandbox, item(script=SCRIPT, points=8, files={"a.txt": b"a"}), "print(1)")
    assert (found.score, found.needs_review) == (2, False)
    assert [(part.criterion, part.score, part.max_score) for part in found.criteria] == [
        ("test-1", 2, 4),
        ("test-2", 0, 4),
    ]
    [order] = sandbox.orders
    assert order.argv == [PYTHON, "run.py"]
    assert set(order.files) == {"run.py", "submission/main.py", "submission/a.txt", "results/.keep"}


async def test_a_script_that_gives_one_score() -> None:
    sandbox = scripted(exited(files=results({"score": 3, "output": "fine"})))
    found = await grade(sandbox, item(script=SCRIPT, points=4), "x")
    assert [(part.criterion, part.score) for part in found.criteria] == [("answer", 3)]
    assert (found.score, found.feedback) == (3, "fine")


@pytest.mark.parametrize(
    ("run", "verdict", "review"),
    [
        (exited(), TestVerdict.INTERNAL, True),
        (exited(code=1, stderr=b"boom"), TestVerdict.INTERNAL, True),
        (exited(files={"results/results.json": b'{"score": 1e9}'}), TestVerdict.INTERNAL, True),
        (Run(ending=Ending.TIME_LIMIT), TestVerdict.TIME_LIMIT, False),
        (Run(ending=Ending.FORBIDDEN), TestVerdict.FORBIDDEN, False),
    ],
)
async def test_a_script_without_results(run: Run, verdict: TestVerdict, review: bool) -> None:
    found = await grade(scripted(run), item(script=SCRIPT, points=4), "x")
    assert (found.score, verdicts(found.tests), found.needs_review) == (0, [verdict], review)


async def test_results_count_although_the_script_was_stopped() -> None:
    run = Run(ending=Ending.TIME_LIMIT, files=results({"tests": [{"score": 1, "max_score": 2}]}))
    assert (await grade(scripted(run), item(script=SCRIPT, points=4), "x")).score == 2
