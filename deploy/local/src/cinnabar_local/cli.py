"""The command line of the runner."""

import argparse
import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from cinnabar_local.checkout import deploy_folder
from cinnabar_local.folders import (
    DataFolder,
    data_folder,
    default_folder,
    fingerprint,
    read_state,
)
from cinnabar_local.identity import unprivileged
from cinnabar_local.servers.envoy import compose_settings, render
from cinnabar_local.stack import running
from cinnabar_local.table import PUBLIC_PORT, Addresses, StackConfig
from cinnabar_local.terminal import console, run

_DETACHED_READY_SECONDS = 180.0
_DOWN_SECONDS = 90.0

_DEMO = "`python -m cinnabar_local demo` grades real homework and has options of its own: see demo --help."


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code: 0, or 1 with a clear word on what failed."""
    if arguments[:1] == ["demo"]:
        from cinnabar_local.demo import main as demo  # the client that it needs takes a while to import

        return demo(arguments[1:])
    options = _parser().parse_args(arguments)
    _log_to_console()
    match options.command:
        case "up" if options.detach:
            return _up_detached(options)
        case "up":
            return run(_up(options))
        case "down":
            return _down(_folder(options))
        case "render":
            return _render()
        case _:
            return _status(_folder(options))


def _log_to_console() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(message)s %(stack_process)s", defaults={"stack_process": ""})
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cinnabar_local", description="Cinnabar on this machine.", epilog=_DEMO
    )
    parser.add_argument("--data", type=Path, default=None, help="data folder (default: .local/)")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything; Ctrl-C stops it")
    up.add_argument("--detach", action="store_true", help="return when it is ready; `down` stops it")
    up.add_argument("--data-servers-only", action="store_true", help="without the services and Envoy")
    up.add_argument("--storages", type=int, default=1)
    up.add_argument("--schedulers", type=int, default=1)
    up.add_argument("--gateways", type=int, default=2)
    up.add_argument("--graders", type=int, default=2)
    commands.add_parser("down", help="stop what `up` started")
    commands.add_parser("render", help="write deploy/envoy/envoy.compose.yaml again")
    commands.add_parser("status", help="what runs; exit code 1 when nothing does")
    return parser


def _folder(options: argparse.Namespace) -> DataFolder:
    return data_folder(options.data or default_folder(), unprivileged())


async def _up(options: argparse.Namespace) -> int:
    config = StackConfig(
        data_dir=options.data or default_folder(),
        storages=options.storages,
        schedulers=options.schedulers,
        gateways=options.gateways,
        graders=options.graders,
        services=not options.data_servers_only,
        supervise=True,
        envoy_port=PUBLIC_PORT,
    )
    began = time.monotonic()
    async with running(config) as stack:
        seconds = time.monotonic() - began
        _print_addresses(stack.addresses, stack.folder, seconds=seconds, services=config.services)
        console.print("Ctrl-C stops it")
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
    return 0


def _print_addresses(addresses: Addresses, folder: DataFolder, *, seconds: float, services: bool) -> None:
    if folder.note:
        console.print(folder.note, markup=False)
    rows = [("redis", _without_password(addresses.redis_url)), ("s3", addresses.s3_endpoint)]
    for number, shard in enumerate(addresses.shards):
        rows.append((f"shard {number}", _without_password(shard.primary_url)))
        rows += [("  replica", _without_password(url)) for url in shard.replica_urls]
    if services:
        rows = [
            ("REST", addresses.http),
            ("gRPC", addresses.envoy),
            ("Envoy admin", f"http://{addresses.envoy_admin}"),
            ("gateways", " ".join(addresses.gateways)),
            ("schedulers", " ".join(addresses.schedulers)),
            (
                "metrics",
                " ".join(
                    f"http://{address}/metrics"
                    for address in (*addresses.metrics, *addresses.storage_metrics)
                ),
            ),
            ("storages", " ".join(addresses.storages)),
            ("graders", " ".join(addresses.graders)),
            *rows,
        ]
    rows += [("data", str(folder.path)), ("logs", str(folder.logs))]
    rows.append(("passwords", str(folder.path / "credentials.json")))
    console.print(f"ready after {seconds:.1f} s")
    for name, value in rows:
        console.print(f"{name:12} {value}", markup=False)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    return parts._replace(netloc=f"{user}{parts.hostname}:{parts.port}").geturl()


def _up_detached(options: argparse.Namespace) -> int:
    folder = _folder(options)
    folder.logs.mkdir(parents=True, exist_ok=True)
    log_path = folder.logs / "runner.log"
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    with log_path.open("wb") as out:
        runner = subprocess.Popen(
            [sys.executable, "-m", "cinnabar_local", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    began = time.monotonic()
    while time.monotonic() - began < _DETACHED_READY_SECONDS:
        state = read_state(folder)
        if state.get("ready") and state["runner"]["pid"] == runner.pid:
            _print_addresses(
                Addresses.from_state(state["addresses"]),
                folder,
                seconds=time.monotonic() - began,
                services="envoy" in state["processes"],
            )
            return 0
        if runner.poll() is not None:
            console.print(log_path.read_text("utf-8").rstrip())
            return 1
        time.sleep(0.1)
    os.kill(runner.pid, signal.SIGTERM)
    console.print(f"not ready after {_DETACHED_READY_SECONDS:g} s; see {log_path}")
    return 1


def _render() -> int:
    file = deploy_folder() / "envoy" / "envoy.compose.yaml"
    file.write_text(render(compose_settings()), "utf-8")
    console.print(str(file))
    return 0


def _runner_pid(state: Mapping[str, Any]) -> int | None:
    runner = state.get("runner")
    if not runner or fingerprint(runner["pid"]) != runner["created"]:
        return None
    return int(runner["pid"])


def _down(folder: DataFolder) -> int:
    pid = _runner_pid(read_state(folder))
    if pid is None:
        console.print("nothing runs")
        return 0
    runner = psutil.Process(pid)
    try:
        runner.terminate()
        runner.wait(_DOWN_SECONDS)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        runner.kill()  # its processes end with it
        console.print(f"did not stop within {_DOWN_SECONDS:g} s and was killed")
        return 1
    console.print("stopped")
    return 0


def _status(folder: DataFolder) -> int:
    state = read_state(folder)
    if _runner_pid(state) is None:
        console.print("nothing runs")
        return 1
    for name, entry in state["processes"].items():
        alive = entry["pid"] is not None and fingerprint(entry["pid"]) == entry["created"]
        ended = "done" if entry["one_shot"] else "not running"
        pid, how = (entry["pid"], "running") if alive else ("-", ended)
        console.print(f"{name:20} {pid:>8} {how:12} {entry['log']}", markup=False)
    console.print(f"REST and gRPC: {state['addresses']['envoy']}")
    return 0
