"""What can be put between the processes of the table, and before them."""

import sys
from pathlib import Path

import pytest

from cinnabar_local.credentials import Credentials
from cinnabar_local.ports import Ports
from cinnabar_local.process import ProcessSpec
from cinnabar_local.table import StackConfig, build_table

SETTINGS = {
    ("storage-0", "postgres-1"): "STORAGE_SHARDS",
    ("storage-0", "postgres-1-replica"): "STORAGE_SHARDS",
    ("scheduler-1", "valkey"): "SCHEDULER_REDIS_URL",
    ("scheduler-0", "storage-0"): "SCHEDULER_STORAGE_TARGET",
    ("gateway-1", "scheduler-0"): "GATEWAY_SCHEDULER_TARGET",
    ("gateway-0", "storage-0"): "GATEWAY_STORAGE_TARGET",
    ("grader-1", "scheduler-1"): "GRADER_SCHEDULER_TARGET",
}


PORTS, CREDENTIALS = Ports(), Credentials()


def rows_of(config: StackConfig) -> dict[str, ProcessSpec]:
    """The rows of the table by name, always on the same ports; nothing is started."""
    table = build_table(config, folder=config.data_dir, ports=PORTS, credentials=CREDENTIALS, identity=None)
    return {row.name: row for row in table.rows}


@pytest.mark.parametrize(("caller", "callee"), SETTINGS)
def test_a_detour_changes_one_address_of_one_process(tmp_path: Path, caller: str, callee: str) -> None:
    asked: dict[tuple[str, str], str] = {}

    def detour(by: str, to: str, address: str) -> str:
        asked[by, to] = address
        return "127.0.0.1:9" if (by, to) == (caller, callee) else address

    rows = rows_of(StackConfig(data_dir=tmp_path, schedulers=2, detour=detour))
    plain = rows_of(StackConfig(data_dir=tmp_path, schedulers=2))
    straight = asked[caller, callee]
    assert plain[caller].env[SETTINGS[caller, callee]].count(straight) == 1
    for name, row in rows.items():
        expected = dict(plain[name].env)
        if name == caller:
            setting = SETTINGS[caller, callee]
            expected[setting] = expected[setting].replace(straight, "127.0.0.1:9")
        assert row.env == expected


def test_every_link_between_services_and_servers_can_be_detoured(tmp_path: Path) -> None:
    asked: set[tuple[str, str]] = set()

    def detour(by: str, to: str, address: str) -> str:
        asked.add((by.partition("-")[0], to.partition("-")[0]))
        return address

    rows_of(StackConfig(data_dir=tmp_path, detour=detour))
    assert asked >= {
        ("gateway", "storage"),
        ("gateway", "scheduler"),
        ("scheduler", "valkey"),
        ("scheduler", "storage"),
        ("grader", "scheduler"),
        ("storage", "postgres"),
    }


def test_a_launcher_stands_before_the_module_of_its_process_alone(tmp_path: Path) -> None:
    rows = rows_of(StackConfig(data_dir=tmp_path, launchers={"grader-1": ("launch.py", "x")}))
    assert rows["grader-1"].command == (sys.executable, "launch.py", "x", "-m", "cinnabar_grader")
    assert rows["grader-0"].command == (sys.executable, "-m", "cinnabar_grader")
