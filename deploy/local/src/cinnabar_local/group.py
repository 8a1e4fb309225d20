"""Several processes together: started by their needs, stopped in reverse, kept alive."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from cinnabar_local.process import Process, ProcessSpec, StartFailed

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class ProcessGroup:
    """The processes of ``specs``; their logs are ``<logs>/<name>.log``, and of the time before, ``.log.1``.

    ``on_spawn`` is called whenever one of them has got a process id.

    Raises ValueError when two rows have one name, or a row needs one that is not there or comes later.
    """

    def __init__(
        self, specs: Iterable[ProcessSpec], *, logs: Path, on_spawn: Callable[[], None] | None = None
    ) -> None:
        self._processes: dict[str, Process] = {}
        self._watchers: list[asyncio.Task[None]] = []
        self._locks: dict[str, asyncio.Lock] = {}
        logs.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            if spec.name in self._processes:
                raise ValueError(f"two processes are called {spec.name}")
            if missing := [need for need in spec.needs if need not in self._processes]:
                raise ValueError(f"{spec.name} needs {', '.join(missing)}, which must come before it")
            log_path = logs / f"{spec.name}.log"
            if log_path.exists():
                log_path.replace(logs / f"{spec.name}.log.1")
            self._processes[spec.name] = Process(spec, log_path=log_path, on_spawn=on_spawn)
            self._locks[spec.name] = asyncio.Lock()

    def __getitem__(self, name: str) -> Process:
        """The process called ``name``. Raises KeyError, which lists the names there are."""
        try:
            return self._processes[name]
        except KeyError:
            raise KeyError(f"no process {name!r}; there are {', '.join(self._processes)}") from None

    def __iter__(self) -> Iterator[Process]:
        """All of them, in the order of the table."""
        return iter(self._processes.values())

    async def start_all(self) -> None:
        """Start all, each as soon as those it needs are ready. Raises StartFailed; all are stopped then."""
        ready = {name: asyncio.Event() for name in self._processes}

        async def start(process: Process) -> None:
            for need in process.spec.needs:
                await ready[need].wait()
            await process.start()
            ready[process.name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for process in self:
                    group.create_task(start(process), name=f"start {process.name}")
        except BaseExceptionGroup as errors:
            await self.stop_all()
            raise _first_failure(errors) from None
        except BaseException:
            await self.stop_all()
            raise

    async def stop_all(self) -> None:
        """Stop all, each when those that need it have ended. Idempotent."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers = []
        stopped = {name: asyncio.Event() for name in self._processes}

        async def stop(process: Process) -> None:
            for other in self:
                if process.name in other.spec.needs:
                    await stopped[other.name].wait()
            try:
                await process.stop()
            finally:
                stopped[process.name].set()

        async with asyncio.TaskGroup() as group:
            for process in self:
                group.create_task(stop(process), name=f"stop {process.name}")

    def supervise(self) -> None:
        """From now on start again whatever ends without having been asked to, until ``stop_all``."""
        for process in self:
            if not process.spec.one_shot:
                self._watchers.append(
                    asyncio.create_task(self._keep_alive(process), name=f"supervise {process.name}")
                )

    async def start(self, name: str) -> None:
        """Start one and return when it is ready. Raises StartFailed, KeyError."""
        process = self[name]
        async with self._locks[name]:
            await process.start()

    async def stop(self, name: str) -> None:
        """SIGTERM one (Postgres: its fast shutdown) and wait for its end; supervision leaves it stopped."""
        process = self[name]
        process.wanted = False
        async with self._locks[name]:
            await process.stop()

    async def kill(self, name: str) -> None:
        """SIGKILL one; under supervision it comes back by itself."""
        await self[name].kill()

    async def restart(self, name: str) -> None:
        """Stop one when it runs, start it again on the same port, and return when it is ready."""
        await self.stop(name)
        await self.start(name)

    async def _keep_alive(self, process: Process) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            code = await process.wait()
            await asyncio.sleep(pause)
            if not process.wanted or process.running:
                pause = _FIRST_PAUSE_SECONDS
                continue
            log.warning(
                "process died, starting it again", extra={"stack_process": process.name, "exit_code": code}
            )
            try:
                async with self._locks[process.name]:
                    if process.wanted:
                        await process.start()
                pause = _FIRST_PAUSE_SECONDS
            except Exception as error:
                log.error("process did not come back", extra={"stack_process": process.name}, exc_info=error)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _first_failure(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The StartFailed among ``errors``, or else the first leaf: one clear error instead of a tree."""
    leaves = list(_leaves(errors))
    return next((leaf for leaf in leaves if isinstance(leaf, StartFailed)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(part)
    else:
        yield error


@asynccontextmanager
async def serving(*specs: ProcessSpec, logs: Path) -> AsyncGenerator[ProcessGroup]:
    """Run the processes of ``specs`` for the length of a block."""
    group = ProcessGroup(specs, logs=logs)
    try:
        await group.start_all()
        yield group
    finally:
        await group.stop_all()
