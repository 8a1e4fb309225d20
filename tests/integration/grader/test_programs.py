"""Programs in real boxes: each language whose toolchain is here, with each way to end."""

import asyncio
import io
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cinnabar_grader.code.checkers import Exact, Numbers, Program
from cinnabar_grader.code.item import Script, ScriptForm, Stdio, Test
from cinnabar_grader.code.languages import Language, toolchains
from cinnabar_grader.graders import ArchiveAnswer, CodeAnswer, Progress, TestVerdict
from cinnabar_grader.sandbox import Sandbox, choose
from tests.support.grader_programs import calls, grade, item, stdio, verdicts

PROGRAMS = Path(__file__).parents[2] / "support" / "programs"
HERE = list(toolchains(sys.executable))
V = TestVerdict
ENDS = {
    "drawer": V.ACCEPTED,
    "wrong": V.WRONG_ANSWER,
    "loop": V.TIME_LIMIT,
    "memory": V.MEMORY_LIMIT,
    "flood": V.OUTPUT_LIMIT,
    "fail": V.RUNTIME_ERROR,
    "crash": V.RUNTIME_ERROR,
    "forbidden": V.FORBIDDEN,
}
NOT_FORBIDDEN = (Language.JAVASCRIPT, Language.JAVA)  # they have no way to a system call of their own
SIGNALS = {Language.PYTHON: "SIGSEGV", Language.C: "SIGSEGV", Language.CPP: "SIGABRT"}


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with choose() as opened:
        yield opened


@pytest.mark.parametrize("language", HERE, ids=str)
async def test_every_end_has_its_verdict(sandbox: Sandbox, language: Language) -> None:
    ends = {word: end for word, end in ENDS.items() if word != "forbidden" or language not in NOT_FORBIDDEN}
    tests = [Test(word, 1, Stdio(word.encode(), [], word[::-1].encode())) for word in ends]
    asked = item(
        tests, language, cpu_seconds=0.6, wall_seconds=20, memory_bytes=64 << 20, output_bytes=64 << 10
    )
    source = (PROGRAMS / f"all_ends.{language}").read_text("utf-8")
    found = await grade(sandbox, asked, source)
    by_word = {test.test: test for test in found.tests}
    assert {word: test.verdict for word, test in by_word.items()} == ends
    assert found.score == 1
    assert not found.needs_review
    if language in SIGNALS:
        assert by_word["crash"].signal == SIGNALS[language]
    assert by_word["drawer"].cpu_seconds > 0
    assert not any(folder in test.message for test in found.tests for folder in ("/usr", "/tmp", "/home"))


async def test_who_only_waits_is_stopped_too(sandbox: Sandbox) -> None:
    found = await grade(sandbox, item(stdio()[:1], wall_seconds=1), "import time\ntime.sleep(60)")
    assert verdicts(found.tests) == [V.TIME_LIMIT]
    assert found.tests[0].wall_seconds < 10


@pytest.mark.parametrize("language", HERE, ids=str)
async def test_what_does_not_compile(sandbox: Sandbox, language: Language) -> None:
    found = await grade(sandbox, item(stdio(), language), "int main( { return 0 )")
    assert verdicts(found.tests) == [V.COMPILE_ERROR] * 3
    assert "main" in found.tests[0].message.lower()
    assert "/" not in found.tests[0].message


@pytest.mark.parametrize(
    "bomb",
    [
        '#include "/dev/zero"\n',
        "template<int n> struct A { static const int v = A<n + 1>::v; };\nint main() { return A<0>::v; }",
    ],
)
async def test_compilers_have_limits(sandbox: Sandbox, bomb: str) -> None:
    found = await grade(sandbox, item(stdio(), Language.CPP), bomb)
    assert verdicts(found.tests) == [V.COMPILE_ERROR] * 3


async def test_calls_of_python(sandbox: Sandbox) -> None:
    tests = calls(
        Language.PYTHON,
        ("add(1, 2)", "3"),
        ("add('a', 'b')", "'ab'"),
        ("pair(1)", "(1, [2.0])"),
        ("pair(2)", "[2, [4.0]]"),
        ("add(1, 'b')", "0"),
        ("loop()", "0"),
        ("leave()", "0"),
        ("liar()", "1"),
        ("remembers()", "1"),
        ("remembers()", "1"),
        ("remembers()", "1"),
        ("missing()", "0"),
        ("memory()", "0"),
        ("crash()", "0"),
        ("reads()", "''"),
    )
    source = """
import ctypes, os, sys
state = []
print("the program begins")

def add(a, b): return a + b
def pair(n): return (n, [float(2 * n)])
def loop():
    while True: pass
def leave(): os._exit(0)
class Liar:
    def __eq__(self, other): return True
def liar(): return Liar()
def remembers():
    state.append(1)
    with open("state.txt", "a") as file: file.write("x")
    return max(len(state), len(open("state.txt").read()))
def memory(): return len("x" * (600 << 20))
def crash(): ctypes.string_at(0)
def reads(): return sys.stdin.read()
if __name__ == "__main__":
    raise SystemExit("not for tests")
"""
    reports: list[Progress] = []
    found = await grade(sandbox, item(tests, cpu_seconds=0.5), source, reports=reports)
    assert verdicts(found.tests) == [
        V.ACCEPTED,
        V.ACCEPTED,
        V.ACCEPTED,
        V.WRONG_ANSWER,
        V.RUNTIME_ERROR,
        V.TIME_LIMIT,
        V.WRONG_ANSWER,
        V.WRONG_ANSWER,
        V.ACCEPTED,
        V.ACCEPTED,
        V.ACCEPTED,
        V.RUNTIME_ERROR,
        V.MEMORY_LIMIT,
        V.RUNTIME_ERROR,
        V.ACCEPTED,
    ]
    by_test = {test.test: test for test in found.tests}
    assert by_test["call-1"].output == "the program begins\n"
    assert by_test["call-4"].message == "pair(2) gave (2, [4.0]), expected was [2, [4.0]]."
    assert "TypeError" in by_test["call-5"].message
    assert 'File "main.py", line 6, in add' in by_test["call-5"].message
    assert "NameError" in by_test["call-12"].message
    assert by_test["call-14"].signal == "SIGSEGV"
    assert len(reports) > 2
    assert len(reports[-1].tests) == len(tests)


async def test_large_values_are_compared_whole(sandbox: Sandbox) -> None:
    tests = calls(
        Language.PYTHON,
        ("f(0)", repr([1] * 50_000)),
        ("f(1)", repr([1] * 50_000)),
    )
    found = await grade(sandbox, item(tests, output_bytes=1000), "def f(n): return [1] * 49_999 + [1 + n]")
    assert verdicts(found.tests) == [V.ACCEPTED, V.WRONG_ANSWER]
    assert len(found.tests[1].message) < 1000


async def test_calls_of_javascript(sandbox: Sandbox) -> None:
    tests = calls(
        Language.JAVASCRIPT,
        ("add(1, 2)", "3"),
        ("shape({a: [1]})", '{"a": [1], "n": null}'),
        ("later(5)", "5"),
        ("nothing()", "null"),
        ("fails()", "0"),
        ("loop()", "0"),
        ("process.exit(0)", "0"),
        ("writes()", "1"),
        ("(", "1"),
    )
    source = """
console.log('the program begins');
const add = (a, b) => a + b;
function shape(o) { return {...o, n: null}; }
async function later(n) { return n; }
function nothing() {}
function fails() { throw new TypeError('no'); }
function loop() { for (;;); }
function writes() { require('fs').writeSync(1, '{"value": ["i", "1"]}\\\\n'); return 1; }
"""
    found = await grade(sandbox, item(tests, Language.JAVASCRIPT, cpu_seconds=0.5), source)
    assert verdicts(found.tests) == [
        V.ACCEPTED,
        V.ACCEPTED,
        V.ACCEPTED,
        V.WRONG_ANSWER,
        V.RUNTIME_ERROR,
        V.TIME_LIMIT,
        V.WRONG_ANSWER,
        V.ACCEPTED,
        V.INTERNAL,
    ]
    assert found.tests[0].output == "the program begins\n"
    assert found.tests[3].message == "nothing() gave undefined, expected was null."
    assert "TypeError: no" in found.tests[4].message
    assert found.needs_review


async def test_syntax_errors_where_functions_are_called(sandbox: Sandbox) -> None:
    for language, call in ((Language.PYTHON, ("f()", "1")), (Language.JAVASCRIPT, ("f()", "1"))):
        found = await grade(sandbox, item(calls(language, call, call), language), "f = = 1")
        assert verdicts(found.tests) == [V.COMPILE_ERROR] * 2
        assert "main." in found.tests[0].message


async def test_a_preamble_goes_before_the_program(sandbox: Sandbox) -> None:
    tests = [*calls(Language.PYTHON, ("sqrt(16) + f()", "4.5"), ("g()", "1")), *stdio()[:1]]
    asked = item(tests, preamble="from math import sqrt\nhalf = 0.5\n")
    source = (
        "def f(): return half\ndef g():\n    return 1 / 0\nif __name__ == '__main__': print(int(sqrt(9)))"
    )
    found = await grade(sandbox, asked, source)
    assert verdicts(found.tests) == [V.ACCEPTED, V.RUNTIME_ERROR, V.ACCEPTED]
    assert 'File "main.py", line 3, in g' in found.tests[1].message


async def test_checkers(sandbox: Sandbox) -> None:
    judge = Program(
        "expected, output = (set(open(name).read().split()) for name in ('expected', 'output'))\n"
        "print(len(expected & output) / len(expected))\n"
        "print('missing:', *sorted(expected - output))\n"
    )
    broken = Program("raise ValueError")
    cases = [
        (Exact(), b"1 2 3.001 \n", V.WRONG_ANSWER),
        (Numbers(absolute=0.01), b"1.001 2 3", V.ACCEPTED),
        (judge, b"3.001 2 5 7", V.ACCEPTED),
        (broken, b"", V.INTERNAL),
    ]
    tests = [
        Test(f"t-{number}", 1, Stdio(b"", ["1", "2"], expected, checker))
        for number, (checker, expected, _) in enumerate(cases)
    ]
    found = await grade(sandbox, item(tests), "import sys\nprint(*sys.argv[1:], 3.001)")
    assert verdicts(found.tests) == [verdict for _, _, verdict in cases]
    assert found.score == 1.5
    assert found.tests[2].message == "missing: 5 7"
    assert found.needs_review


def archive(**files: str) -> ArchiveAnswer:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        for name, content in files.items():
            written.writestr(f"homework/{name.replace('__', '/')}.c", content)
    return ArchiveAnswer(target.getvalue())


async def test_programs_of_several_files(sandbox: Sandbox) -> None:
    main = (
        "#include <stdio.h>\nint add(int, int);\n"
        'int main() { int a, b; scanf("%d %d", &a, &b); printf("%d", add(a, b)); }'
    )
    add = "int add(int a, int b) { return a + b; }"
    assert (await grade(sandbox, item(stdio(), Language.C), archive(main=main, src__add=add))).score == 3
    driver = item(stdio(), Language.C, files={"main.c": main.encode()})
    assert (await grade(sandbox, driver, CodeAnswer({"add.c": add, "main.c": "cheat"}))).score == 3


SCRIPT = b"""
import json, subprocess, sys
tests = []
for given, wanted in (("1 2", "3"), ("4 5", "9")):
    run = subprocess.run([sys.executable, "submission/main.py"], input=given, capture_output=True, text=True)
    right = run.stdout.strip() == wanted
    tests.append({"name": given, "score": int(right), "max_score": 1, "points": int(right), "max_points": 1})
with open("results/results.json", "w") as file:
    json.dump({"tests": tests}, file)
"""


@pytest.mark.parametrize("form", ScriptForm)
async def test_scripts(sandbox: Sandbox, form: ScriptForm) -> None:
    script = Script({"run.py": SCRIPT}, ("python3", "run.py"), form)
    source = "a, b = input().split()\nprint(int(a) + int(b) if a == '1' else 0)"
    found = await grade(sandbox, item(script=script, points=10), source)
    assert (found.score, verdicts(found.tests)) == (5, [V.ACCEPTED, V.WRONG_ANSWER])


@pytest.mark.parametrize(
    ("shell", "verdict"),
    [
        ("ln -s /etc/passwd results/results.json", V.INTERNAL),
        ("mkdir results/results.json", V.INTERNAL),
        ("head -c 3000000 /dev/zero > results/results.json", V.OUTPUT_LIMIT),
        ("echo '{\"score\": 99}' > results/results.json", V.INTERNAL),
        ("while :; do :; done", V.TIME_LIMIT),
    ],
)
async def test_scripts_that_write_no_results(sandbox: Sandbox, shell: str, verdict: TestVerdict) -> None:
    script = Script({"run.sh": shell.encode()}, ("sh", "run.sh"), ScriptForm.GRADESCOPE)
    found = await grade(sandbox, item(script=script, points=10, cpu_seconds=0.3), "print(1)")
    assert (found.score, verdicts(found.tests)) == (0, [verdict])
    assert found.needs_review == (verdict is V.INTERNAL)


async def test_one_who_is_cancelled_leaves_nothing_running(sandbox: Sandbox) -> None:
    source = "import time\nfor n in range(600): time.sleep(0.1)"
    task = asyncio.ensure_future(grade(sandbox, item(stdio(), cpu_seconds=10, wall_seconds=60), source))
    async with asyncio.timeout(30):
        while not _sleepers():
            assert not task.done()
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not _sleepers()


def _sleepers() -> list[str]:
    """Processes of the program that is cancelled, which the grader sees from outside its box."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[-2:-1] == [b"main.py"] and b"-s" in words and not any(b"bwrap" in word for word in words):
            found.append(path.parent.name)
    return found
