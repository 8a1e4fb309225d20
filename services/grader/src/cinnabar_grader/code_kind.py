"""Opens the graders of programs: a sandbox, and the languages whose toolchains are here."""

from __future__ import annotations

import logging

from cinnabar_grader.code import CodeGrader, toolchains
from cinnabar_grader.kinds import Opened, Opening
from cinnabar_grader.sandbox import NoSandbox, choose

log = logging.getLogger(__name__)


async def open_code(opening: Opening) -> Opened:
    """A grader for each language that can be compiled and run here, and the check "sandbox".

    None without a sandbox: programs of strangers are not run in the open.
    """
    config = opening.config
    try:
        sandbox = await opening.exits.enter_async_context(
            choose(
                slots=config.runs,
                allow_weak=config.code_weak_sandbox,
                python=config.code_python,
                trees=config.code_trees,
                cgroup=config.code_cgroup,
            )
        )
    except NoSandbox as error:
        log.warning("programs are not graded here: no sandbox", extra={"tried": str(error)})
        return Opened([])
    graders = [
        CodeGrader(toolchain, sandbox, task_seconds=config.code_task_seconds)
        for toolchain in toolchains(sandbox.python, packages=bool(config.code_python)).values()
    ]
    return Opened(
        [grader for grader in graders if grader.queue in config.queues],
        # The name says which it is: whoever asks for "sandbox.bubblewrap" is answered only where it is that.
        {"sandbox": sandbox.check, f"sandbox.{sandbox.mechanism}": sandbox.check},
        most=2 * config.runs,
    )
