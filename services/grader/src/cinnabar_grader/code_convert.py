"""Items of programs, from their messages to the words of the grader."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration

from cinnabar.grader.v1.item_pb2 import Checker as CheckerMessage
from cinnabar.grader.v1.item_pb2 import CodeSpec, CodeTest, Item, ScriptTest
from cinnabar_grader.code.checkers import Checker, Exact, Numbers, Program, Tokens
from cinnabar_grader.code.item import CodeItem, Script, ScriptForm, Stdio, Test, call_test, limits_of
from cinnabar_grader.code.languages import Language
from cinnabar_grader.phrases import language_of

_LANGUAGES: Mapping[CodeSpec.Language.ValueType, Language] = {
    CodeSpec.PYTHON: Language.PYTHON,
    CodeSpec.C: Language.C,
    CodeSpec.CPP: Language.CPP,
    CodeSpec.JAVASCRIPT: Language.JAVASCRIPT,
    CodeSpec.JAVA: Language.JAVA,
}


def code_item(item: Item) -> CodeItem:
    """The compiled form of an item of a program. ValueError when it makes no sense."""
    spec = item.code
    language = _LANGUAGES.get(spec.language)
    if language is None:
        raise ValueError("the language is not known")
    limits = spec.limits
    return CodeItem(
        points=item.points,
        language=language,
        tests=[_test(language, test) for test in spec.tests],
        script=_script(spec.script) if spec.HasField("script") else None,
        files={file.path: file.content.encode() for file in spec.files},
        limits=limits_of(
            language,
            cpu_seconds=_seconds(limits.cpu_time) if limits.HasField("cpu_time") else None,
            wall_seconds=_seconds(limits.wall_time) if limits.HasField("wall_time") else None,
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,
            output_bytes=limits.output_bytes,
            file_bytes=limits.file_bytes,
        ),
        preamble=spec.preamble,
        tongue=language_of(item.prompt, *(test.title for test in spec.tests)),
    )


def _test(language: Language, test: CodeTest) -> Test:
    match test.WhichOneof("form"):
        case "stdio":
            stdio = test.stdio
            form = Stdio(
                stdio.input.encode(),
                list(stdio.arguments),
                stdio.expected_output.encode(),
                _checker(stdio.checker),
            )
        case "call":
            call = test.call
            form = call_test(language, call=call.call, expected=call.expected, tolerance=call.tolerance)
        case None:
            raise ValueError("a test does not say what is done")
    return Test(test.test, test.points, form, test.title, test.hidden)


def _checker(checker: CheckerMessage) -> Checker:
    match checker.WhichOneof("kind"):
        case "exact":
            return Exact()
        case "numbers":
            return Numbers(checker.numbers.absolute_tolerance, checker.numbers.relative_tolerance)
        case "program":
            return Program(checker.program.source)
        case "tokens" | None:
            return Tokens(checker.tokens.ignore_case)


def _script(script: ScriptTest) -> Script:
    if not script.command:
        raise ValueError("a script has no command")
    form = ScriptForm.PRAIRIELEARN if script.form == ScriptTest.PRAIRIELEARN else ScriptForm.GRADESCOPE
    return Script({file.path: file.content.encode() for file in script.files}, list(script.command), form)


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
