"""One process and several together, without the suite."""

import itertools
import json
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cinnabar_local import probes
from cinnabar_local.group import ProcessGroup, serving
from cinnabar_local.ports import Ports, is_free
from cinnabar_local.process import ProcessSpec, StartFailed
from tests.support.waiting import until

HEALTH_SERVER = str(Path(__file__).with_name("health_server.py"))


def health_server(name: str, *, needs: tuple[str, ...] = ()) -> ProcessSpec:
    """A row like that of a service."""
    address = f"127.0.0.1:{Ports().of(name)}"

    async def ready() -> None:
        await probes.grpc_serving(address)

    return ProcessSpec(
        name=name,
        command=(sys.executable, HEALTH_SERVER, address),
        needs=needs,
        ready=ready,
        ready_seconds=30.0,
    )


def script(name: str, code: str, *, needs: tuple[str, ...] = (), one_shot: bool = False) -> ProcessSpec:
    """A row that runs some lines of Python."""
    return ProcessSpec(
        name=name, command=(sys.executable, "-c", code), needs=needs, one_shot=one_shot, ready_seconds=30.0
    )


async def test_starts_by_needs_and_stops_in_reverse(tmp_path: Path) -> None:
    mark = "import pathlib, sys; open({!r}, 'a').write('{} ')"
    order = tmp_path / "order"
    specs = [
        script("first", mark.format(str(order), "first"), one_shot=True),
        script("second", mark.format(str(order), "second"), needs=("first",), one_shot=True),
        health_server("server", needs=("second",)),
    ]
    async with serving(*specs, logs=tmp_path / "logs") as group:
        assert order.read_text("utf-8") == "first second "
        assert group["server"].running
        pid = group["server"].pid
        assert pid is not None
    assert not psutil.pid_exists(pid)
    assert await group["server"].wait() == 0


async def test_a_failed_start_shows_the_end_of_the_log_and_stops_the_others(tmp_path: Path) -> None:
    group = ProcessGroup(
        [
            health_server("server"),
            script(
                "broken",
                "print('the disk is on fire'); raise SystemExit(3)",
                needs=("server",),
                one_shot=True,
            ),
        ],
        logs=tmp_path,
    )
    with pytest.raises(StartFailed, match=r"broken exited with 3(.|\n)*the disk is on fire"):
        await group.start_all()
    assert not group["server"].running


async def test_a_process_that_never_serves_is_given_up(tmp_path: Path) -> None:
    async def never() -> None:
        raise probes.NotReady("no")

    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    spec = ProcessSpec(name="sleeper", command=sleeper, ready=never, ready_seconds=0.3)
    with pytest.raises(StartFailed, match=r"sleeper was not ready after 0\.3 s"):
        async with serving(spec, logs=tmp_path):
            pytest.fail("it cannot have started")


async def test_kill_takes_the_descendants_too(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True); "
        "time.sleep(600)"
    )
    async with serving(script("parent", parent), logs=tmp_path) as group:
        pid = group["parent"].pid
        assert pid is not None

        async def has_child() -> bool:
            return len(psutil.Process(pid).children()) == 1

        await until(has_child, description="the parent has its child")
        children = psutil.Process(pid).children()
        await group.kill("parent")
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


async def test_supervision_brings_back_what_died_but_not_what_was_stopped(tmp_path: Path) -> None:
    async with serving(health_server("kept"), health_server("stopped"), logs=tmp_path) as group:
        group.supervise()
        before = group["kept"].pid
        await group.stop("stopped")
        await group.kill("kept")

        async def back() -> bool:
            return group["kept"].pid not in (None, before)

        await until(back, description="the killed process runs again")
        assert not group["stopped"].running


async def test_restart_keeps_the_address(tmp_path: Path) -> None:
    async with serving(health_server("server"), logs=tmp_path) as group:
        await group.restart("server")
        await group["server"].spec.ready()


async def test_a_paused_process_does_not_answer_until_it_is_resumed(tmp_path: Path) -> None:
    async with serving(health_server("server"), logs=tmp_path) as group:
        group["server"].pause()
        with pytest.raises(probes.NotReady):
            await group["server"].spec.ready()
        group["server"].resume()

        async def answers() -> bool:
            try:
                await group["server"].spec.ready()
            except probes.NotReady:
                return False
            return True

        await until(answers, description="it answers again")


def test_ports_are_the_same_next_time_unless_taken(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json")
    one, two = first.of("one"), first.of("two")
    first.save()
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", two))
        somebody.listen()
        again = Ports(tmp_path / "ports.json")
        assert again.of("one") == one
        assert again.of("two") not in (one, two)


def test_a_port_belongs_to_one_process_until_it_ends(tmp_path: Path) -> None:
    """Before anybody listens on it as well: two stacks may start at the same moment."""
    script = "from cinnabar_local.ports import Ports; print(Ports().of('server'), flush=True); input()"
    file = tmp_path / "ports.json"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        file.write_text(json.dumps({"server": port}))
        assert is_free(port)
        assert Ports(file).of("server") != port
        other.communicate("\n")
    assert Ports(file).of("server") == port


def test_a_process_is_given_a_port_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port = Ports().of("server")
    choices = itertools.chain([port, port], range(31_000, 32_000))

    def choice(_: range) -> int:
        return next(choices)

    monkeypatch.setattr(random, "choice", choice)
    assert Ports().of("server") != port


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([script("a", ""), script("a", "")], "two processes are called a"),
        ([script("a", "", needs=("b",)), script("b", "")], "a needs b"),
    ],
)
def test_a_table_that_cannot_start_is_refused(specs: list[ProcessSpec], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ProcessGroup(specs, logs=tmp_path)


async def test_a_signal_reaches_the_process_and_nobody_when_it_is_gone(tmp_path: Path) -> None:
    async with serving(health_server("server"), logs=tmp_path / "logs") as group:
        group["server"].send_signal(signal.SIGTERM)
        assert await group["server"].wait() == 0
        group["server"].send_signal(signal.SIGTERM)
        assert not group["server"].running
