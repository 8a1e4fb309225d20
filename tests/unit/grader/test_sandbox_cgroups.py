"""Which cgroups are found and what is written there, on trees that look like those of machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinnabar_grader.sandbox.keeper import cgroups


def v2(folder: Path, controllers: str = "cpuset cpu io memory pids", control: str = "") -> Path:
    """A folder as cgroup v2 shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(control)
    (folder / "cgroup.procs").write_text("")
    return folder


def written(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in folder.iterdir() if path.is_file()}


def test_a_delegated_folder_of_v2_is_used(tmp_path: Path) -> None:
    own = v2(tmp_path / "service", control="memory pids cpu")
    groups = cgroups.find(mount=tmp_path, own="0::/service\n")
    assert groups is not None
    assert groups.version == "cgroup v2"
    (root,) = own.glob("cinnabar-*-*/")
    group = groups.new("1", memory_bytes=1 << 20, processes=7)
    assert written(root / "1") == {
        "memory.max": str(1 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "7",
    }
    assert written(root)["cgroup.subtree_control"] == "+memory +pids +cpu"
    (root / "1" / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (root / "1" / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (root / "1" / "memory.peak").write_text("4096\n")
    assert (group.cpu_seconds(), group.memory_bytes(), group.out_of_memory()) == (1.5, 4096, True)
    (root / "1" / "cgroup.kill").write_text("")
    group.kill()
    assert written(root / "1")["cgroup.kill"] == "1"


def test_a_kernel_before_memory_peak_says_nothing_of_it(tmp_path: Path) -> None:
    v2(tmp_path / "service", control="memory pids cpu")
    groups = cgroups.find(mount=tmp_path, own="0::/service\n")
    assert groups is not None
    assert groups.new("1", memory_bytes=1, processes=1).memory_bytes() == 0


def test_the_folder_that_is_named_comes_first(tmp_path: Path) -> None:
    v2(tmp_path / "service", control="memory pids cpu")
    named = v2(tmp_path / "named", control="memory pids cpu")
    assert cgroups.find(str(named), mount=tmp_path, own="0::/service\n") is not None
    assert len(list(named.glob("cinnabar-*"))) == 1


def hierarchy(mount: Path, controller: str, path: str) -> Path:
    """A folder of one controller, as cgroup v1 shows it."""
    folder = mount / controller / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("")
    return folder


def test_v1_beside_an_empty_v2_is_used(tmp_path: Path) -> None:
    v2(tmp_path / "unified", controllers="hugetlb")
    folders = {name: hierarchy(tmp_path, name, "mine") for name in ("memory", "pids", "cpu", "cpuacct")}
    own = "4:memory:/mine\n3:pids:/mine\n2:cpuacct:/mine\n1:cpu:/mine\n0::/\n"
    groups = cgroups.find(mount=tmp_path, own=own)
    assert groups is not None
    assert groups.version == "cgroup v1"
    group = groups.new("1", memory_bytes=4096, processes=3)
    made = {name: next(folder.glob("cinnabar-*-*/1")) for name, folder in folders.items()}
    assert written(made["memory"])["memory.limit_in_bytes"] == "4096"
    assert written(made["pids"])["pids.max"] == "3"
    (made["memory"] / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (made["memory"] / "memory.max_usage_in_bytes").write_text("8192\n")
    (made["cpuacct"] / "cpuacct.usage").write_text("2500000000\n")
    assert (group.cpu_seconds(), group.memory_bytes(), group.out_of_memory()) == (2.5, 8192, True)


def test_in_a_container_the_mount_is_the_own_folder(tmp_path: Path) -> None:
    folders = {name: hierarchy(tmp_path, name, "") for name in ("memory", "pids", "cpuacct")}
    own = "4:memory:/docker/x\n3:pids:/docker/x\n2:cpu,cpuacct:/docker/x\n"
    assert cgroups.find(mount=tmp_path, own=own) is not None
    assert all(list(folder.glob("cinnabar-*-*")) for folder in folders.values())


@pytest.mark.parametrize("own", ["", "0::/\n", "4:memory:/mine\n"])
def test_without_the_controllers_there_are_none(tmp_path: Path, own: str) -> None:
    hierarchy(tmp_path, "memory", "mine")
    assert cgroups.find(mount=tmp_path, own=own) is None


def test_groups_of_keepers_that_are_no_more_are_collected(tmp_path: Path) -> None:
    parent = v2(tmp_path / "service", control="memory pids cpu")
    (parent / "cinnabar-99-abcd" / "1").mkdir(parents=True)
    living = cgroups.find(mount=tmp_path, own="0::/service\n")
    assert living is not None
    assert not (parent / "cinnabar-99-abcd").exists()
    (alive,) = parent.glob("cinnabar-*-*/")
    second = cgroups.find(mount=tmp_path, own="0::/service\n")
    assert second is not None
    assert alive.exists()
