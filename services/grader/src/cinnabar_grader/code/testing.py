"""Runs the tests of one program: compiles it once, then each test in a run of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from cinnabar_grader.code import calling
from cinnabar_grader.code.checkers import BrokenChecker, Program, judgement
from cinnabar_grader.code.item import Call, CodeItem, Stdio, Test
from cinnabar_grader.code.languages import COMPILING, MIB, Language, Toolchain, python_command
from cinnabar_grader.code.texts import cut, last, without_folders
from cinnabar_grader.code.verdicts import Judged, difference, judged, preamble_lines, stopped, whole
from cinnabar_grader.graders import TestVerdict
from cinnabar_grader.phrases import phrase
from cinnabar_grader.sandbox import Ending, Folder, Limits, Run, Sandbox

RUNS_AT_ONCE = 2
"""Runs of one task: the verdict by the clock must not depend on a crowd of one's own."""
CHECKING = Limits(
    cpu_seconds=5,
    wall_seconds=15,
    memory_bytes=256 * MIB,
    processes=16,
    open_files=64,
    file_bytes=MIB,
    output_bytes=64 * 1024,
)
"""What a checker may use."""
_CHANNEL_BYTES = 64 * 1024  # what an answer of the harness may need besides what the program prints
_BATCH = 2  # calls that are worth a batch


class NotCompiled(Exception):
    """The program does not compile; why, for the student."""

    def __init__(self, message: str) -> None:
        super().__init__("the program does not compile")
        self.message = message


class Testing:
    """The tests of one answer. ``finished`` is told of each test that is finished, by its id."""

    def __init__(
        self,
        item: CodeItem,
        toolchain: Toolchain,
        sandbox: Sandbox,
        *,
        seconds: float,
        shuffle: Callable[[list[Any]], None],
        finished: Callable[[Mapping[str, Judged]], None],
    ) -> None:
        """No run begins when the runs before took ``seconds`` by the clock.

        Time in which runs wait for a box is the grader's affair, and does not count.
        """
        self._item = item
        self._toolchain = toolchain
        self._sandbox = sandbox
        self._limits = toolchain.limits(item.limits)
        self._seconds_left = seconds
        self._shuffle = shuffle
        self._finished = finished
        self._room = asyncio.Semaphore(RUNS_AT_ONCE)

    async def run(self, files: Mapping[str, bytes]) -> None:
        """Runs all tests, as far as there is time.

        NotCompiled; Ungradable (INTERNAL) when the sandbox fails.
        """
        async with self._sandbox.folder(files) as folder:
            if self._compiles():
                await self._compile(folder, files)
            await _together(self._batches(folder))

    def _compiles(self) -> bool:
        """Whether the program is compiled by itself; Python that is only called is not."""
        return self._item.program is not Language.PYTHON or any(
            isinstance(test.form, Stdio) for test in self._item.tests
        )

    async def _compile(self, folder: Folder, files: Mapping[str, bytes]) -> None:
        command = self._toolchain.compile_command(files)
        run = await self._run(folder, command, COMPILING, keep=self._toolchain.keeps)
        if run.ending is Ending.EXITED and run.exit_code == 0:
            return
        if run.ending is Ending.EXITED:
            said = cut(run.stderr or run.stdout)
        else:
            said = phrase(self._item.language, "code_compiler")
        raise NotCompiled(without_folders(said, preamble_lines(self._item)).rstrip())

    def _batches(self, folder: Folder) -> Iterable[Coroutine[Any, Any, None]]:
        """Work in an order that no program knows: what is hidden is never run beside what is shown."""
        calls = [test for test in self._item.tests if isinstance(test.form, Call)]
        work: list[Coroutine[Any, Any, None]] = []
        if self._item.program is Language.PYTHON:
            for hidden in (False, True):
                batch = [test for test in calls if test.hidden == hidden]
                if len(batch) >= _BATCH:
                    self._shuffle(batch)
                    work.append(self._calls(folder, batch))
                    calls = [test for test in calls if test.hidden != hidden]
        work += [self._call(folder, test, test.form) for test in calls if isinstance(test.form, Call)]
        work += [
            self._stdio(folder, test, test.form) for test in self._item.tests if isinstance(test.form, Stdio)
        ]
        self._shuffle(work)
        return work

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[bool]:
        """Waits for a turn; gives whether there is time left."""
        async with self._room:
            yield self._seconds_left > 0

    async def _stdio(self, folder: Folder, test: Test, form: Stdio) -> None:
        async with self._turn() as early:
            if not early:
                return
            command = (*self._toolchain.runner(self._limits.memory_bytes), *form.arguments)
            run = await self._run(folder, command, self._limits, stdin=form.input)
            if failed := stopped(run, self._item, self._toolchain):
                verdict, message = failed
                self._done(test, judged(run, verdict, message=message, output=run.stdout))
            else:
                self._done(test, await self._checked(run, form))

    async def _checked(self, run: Run, form: Stdio) -> Judged:
        if isinstance(form.checker, Program):
            return await self._checked_by(form.checker, run, form)
        # Large outputs would hold up the loop.
        message = await asyncio.to_thread(difference, run.stdout, form.expected, form.checker, self._item)
        if not message:
            return judged(run, TestVerdict.ACCEPTED, share=1.0, output=run.stdout)
        return judged(run, TestVerdict.WRONG_ANSWER, message=message, output=run.stdout)

    async def _checked_by(self, checker: Program, run: Run, form: Stdio) -> Judged:
        files = {
            "checker.py": checker.source.encode(),
            "input": form.input,
            "expected": form.expected,
            "output": run.stdout,
        }
        async with self._sandbox.folder(files) as folder:
            command = python_command(self._sandbox.python, "checker.py")
            check = whole(await folder.run(command, limits=CHECKING))
        try:
            if check.ending is not Ending.EXITED or check.exit_code != 0:
                raise BrokenChecker("it did not come to its end")
            share, message = judgement(check.stdout)
        except BrokenChecker as error:
            message = f"{phrase(self._item.language, 'code_broken')} ({error})"
            return judged(run, TestVerdict.INTERNAL, message=message, output=run.stdout)
        verdict = TestVerdict.ACCEPTED if share > 0 else TestVerdict.WRONG_ANSWER
        return judged(run, verdict, share=share, message=message, output=run.stdout)

    async def _calls(self, folder: Folder, tests: Sequence[Test]) -> None:
        """Many calls in one run, each in a process of its own; what does not end cleanly gets its own run.

        All of them together have the limits of one, so what ends cleanly here kept to its own.
        """
        async with self._turn() as early:
            if not early:
                return
            request = calling.many(tests, self._limits.wall_seconds)
            room = len(tests) * (2 * calling.BATCH_VALUE + _CHANNEL_BYTES)  # a value and its text for each
            run = await self._harness(folder, request, output=room)
            answers = await asyncio.to_thread(calling.replies, tests, run.stdout)
            found: dict[str, Judged] = {}
            for test in tests:
                answer = answers.get(test.test)
                if answer is None or not isinstance(test.form, Call):
                    continue
                if isinstance(answer.reply, calling.NotCompiled):
                    raise NotCompiled(calling.verdict(answer.reply, test.form, self._item)[1])
                verdict, message = calling.verdict(answer.reply, test.form, self._item)
                found[test.test] = Judged(
                    verdict,
                    share=float(verdict is TestVerdict.ACCEPTED),
                    message=cut(message),
                    output=cut(answer.output),
                    cpu_seconds=answer.cpu_seconds,
                    wall_seconds=answer.wall_seconds,
                    memory_bytes=run.memory_bytes,
                )
            self._finished(found)
        left = [test for test in tests if test.test not in found]
        await _together(self._call(folder, test, test.form) for test in left if isinstance(test.form, Call))

    async def _call(self, folder: Folder, test: Test, form: Call) -> None:
        async with self._turn() as early:
            if not early:
                return
            request = calling.one(self._item.program, form)
            room = self._limits.output_bytes + calling.ENCODED * len(form.expected_text)
            run = await self._harness(folder, request, output=room)
            printed = run.stderr
            if failed := stopped(run, self._item, self._toolchain):
                verdict, message = failed
            elif len(printed) > self._limits.output_bytes:
                verdict, message = TestVerdict.OUTPUT_LIMIT, phrase(self._item.language, "code_output")
            else:
                answer = await asyncio.to_thread(calling.reply, request, run.stdout)
                verdict, message = calling.verdict(answer, form, self._item)
                if isinstance(answer, calling.NotCompiled):
                    raise NotCompiled(message)
            share = float(verdict is TestVerdict.ACCEPTED)
            self._done(test, judged(run, verdict, share=share, message=message, output=last(printed, 4096)))

    async def _harness(self, folder: Folder, request: calling.Request, *, output: int) -> Run:
        limits = replace(self._limits, output_bytes=output + _CHANNEL_BYTES)
        command = (*self._toolchain.evaluator(limits.memory_bytes), request.source)
        return await self._run(folder, command, limits, stdin=request.stdin)

    async def _run(
        self,
        folder: Folder,
        command: Sequence[str],
        limits: Limits,
        *,
        stdin: bytes = b"",
        keep: bool = False,
    ) -> Run:
        """A run in the program's folder. Ungradable (INTERNAL) when the box itself broke."""
        run = whole(
            await folder.run(
                command, stdin=stdin, limits=limits, keep=keep, environment=self._toolchain.environment
            )
        )
        self._seconds_left -= run.wall_seconds
        return run

    def _done(self, test: Test, result: Judged) -> None:
        self._finished({test.test: result})


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all of it; the first error ends the rest and is raised as such."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one, name="test")
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
