"""Grades programs: the tasks of one language's queue, each in a sandbox."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

from cinnabar_grader.code import scripts
from cinnabar_grader.code.item import CodeItem, Script
from cinnabar_grader.code.languages import Toolchain
from cinnabar_grader.code.scoresheet import (
    COMPILE_ERROR,
    FILES_REFUSED,
    Scoresheet,
    graded_by_script,
)
from cinnabar_grader.code.sources import Refused, merged, student_files
from cinnabar_grader.code.testing import NotCompiled, Testing
from cinnabar_grader.code.verdicts import Judged, errors_of, stopped, whole
from cinnabar_grader.graders import (
    ArchiveAnswer,
    CodeAnswer,
    FailureCode,
    LeaseToken,
    Outcome,
    Progress,
    Provenance,
    Task,
    TestResult,
    TestVerdict,
    Ungradable,
    checked,
)
from cinnabar_grader.phrases import phrase
from cinnabar_grader.sandbox import Sandbox

VERSION = "1"
TASK_SECONDS = 180.0
"""When the runs of a task took so long together, no test of it begins any more."""
QUEUE_PREFIX = "code-"
SUBMISSION = "submission/"
"""Where the student's files lie beside a script."""
_PYTHONS = frozenset({"python", "python3"})


class CodeGrader:
    """Grades the programs of one language. A `TaskGrader`."""

    name = "code"
    version = VERSION

    def __init__(
        self,
        toolchain: Toolchain,
        sandbox: Sandbox,
        *,
        task_seconds: float = TASK_SECONDS,
        chance: random.Random | None = None,
    ) -> None:
        """``chance`` orders the tests as they are run."""
        self.queue = f"{QUEUE_PREFIX}{toolchain.language}"
        self._toolchain = toolchain
        self._sandbox = sandbox
        self._task_seconds = task_seconds
        self._chance = chance or random.SystemRandom()

    async def grade(self, task: Task, report: Callable[[Progress], None]) -> Outcome:
        """See TaskGrader. Ungradable: INTERNAL when the sandbox fails, UNAVAILABLE when it is away."""
        began = time.monotonic()
        item, answer = self._checked(task)
        sheet = Scoresheet(item)

        def provenance() -> Provenance:
            return Provenance(self.name, self.version, seconds=time.monotonic() - began)

        def finished(found: Mapping[str, Judged]) -> None:
            sheet.add(found)
            report(Progress(task.token, sheet.finished()))

        try:
            files = await self._files(item, answer)
            if item.script is not None:
                return await self._by_script(item, item.script, files, task.token, provenance)
            testing = Testing(
                item,
                self._toolchain,
                self._sandbox,
                seconds=self._task_seconds,
                shuffle=self._chance.shuffle,
                finished=finished,
            )
            await testing.run(files)
        except Refused as error:
            said = phrase(item.language, error.reason, **error.words)
            return sheet.nothing(task.token, provenance(), said=said, message=said, flag=FILES_REFUSED)
        except NotCompiled as error:
            said = phrase(item.language, "code_COMPILE_ERROR")
            return sheet.nothing(
                task.token, provenance(), said=said, message=error.message, flag=COMPILE_ERROR
            )
        except OSError as error:
            raise Ungradable(
                FailureCode.UNAVAILABLE, f"the sandbox is away: {type(error).__name__}"
            ) from error
        return sheet.graded(task.token, provenance())

    def _checked(self, task: Task) -> tuple[CodeItem, str | CodeAnswer | ArchiveAnswer]:
        answer = task.answer
        if not isinstance(answer, str | CodeAnswer | ArchiveAnswer):
            item, answer = checked(task, CodeItem, CodeAnswer)  # says what is wrong
        else:
            item, _ = checked(task, CodeItem, type(answer))
        if item.program is not self._toolchain.language:
            raise Ungradable(FailureCode.INVALID_ARGUMENT, f"the item is not one of the queue {self.queue!r}")
        return item, answer

    async def _files(self, item: CodeItem, answer: str | CodeAnswer | ArchiveAnswer) -> dict[str, bytes]:
        """What lies in the folder of the program. Refused."""
        main = self._toolchain.main
        if isinstance(answer, ArchiveAnswer):
            own = await asyncio.to_thread(student_files, answer, main=main)
        else:
            own = student_files(answer, main=main)
        if item.preamble and main in own:
            newline = "" if item.preamble.endswith("\n") else "\n"
            own[main] = f"{item.preamble}{newline}".encode() + own[main]
        files = merged(own, item.files)
        if item.script is None and main not in files:
            raise Refused("code_no_main", path=main)
        return files

    async def _by_script(
        self,
        item: CodeItem,
        script: Script,
        files: Mapping[str, bytes],
        token: LeaseToken,
        provenance: Callable[[], Provenance],
    ) -> Outcome:
        beside = {f"{SUBMISSION}{path}": content for path, content in files.items()}
        beside[f"{scripts.RESULTS.rpartition('/')[0]}/.keep"] = b""
        command = list(script.command)
        if command[0] in _PYTHONS:
            command[0] = self._sandbox.python
        async with self._sandbox.folder(merged(beside, script.files)) as folder:
            run = whole(
                await folder.run(
                    command,
                    limits=self._toolchain.limits(item.limits),
                    collect=(scripts.RESULTS,),
                    environment=self._toolchain.environment,
                )
            )
        content = run.files.get(scripts.RESULTS)
        failed = stopped(run, item, self._toolchain)
        try:
            results = await asyncio.to_thread(scripts.read, content, script.form, item.points)
        except scripts.BrokenResults as error:
            if failed is None or failed[0] is TestVerdict.RUNTIME_ERROR:
                # A script that ends without results is broken, whatever the program did to it.
                verdict = TestVerdict.INTERNAL
                message = f"{phrase(item.language, 'code_broken')} ({error})\n{errors_of(run, item)}"
            else:
                verdict, message = failed
            test = TestResult("test-1", verdict, 0.0, item.points, message=message.rstrip())
            results = scripts.Results(0.0, [test], parts=False)
        return graded_by_script(item, token, provenance(), results)
