"""What the keeper sees of processes in /proc."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cinnabar_grader.sandbox.keeper import files, processes


def test_children_are_found_with_and_without_the_kernels_list() -> None:
    with subprocess.Popen(["sleep", "900"]) as child:
        try:
            assert child.pid in processes.children(os.getpid())
            assert child.pid in processes.children_by_parent(os.getpid())
            assert list(processes.below(child.pid)) == [child.pid]
            assert child.pid in processes.of_user(os.getuid())
        finally:
            child.kill()
    assert processes.children(child.pid) == []


def test_usage_counts_this_process() -> None:
    usage = processes.usage(os.getpid(), 1 << 40)
    exact = processes.usage(os.getpid(), 0)
    assert usage.cpu_seconds > 0
    assert usage.memory_bytes > 1 << 20
    # This process goes on living between the looks, and the kernel counts in batches.
    assert 0 < exact.memory_bytes <= 1.25 * usage.memory_bytes


def test_files_go_in_and_come_out(tmp_path: Path) -> None:
    files.put(tmp_path, {"a/b/c": b"1", "a/d": b"2"}, None)
    with_links = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "a" / "link").symlink_to("d")
    (tmp_path / "through").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    try:
        assert files.take(with_links, "a/b/c", 1) == b"1"
        assert files.take(with_links, "a/b/c", 0) is None
        assert [files.take(with_links, name, 9) for name in ("a/link", "through/d", "fifo", "a", "no")] == [
            None
        ] * 5
        assert files.everything(with_links, 10, 10) == {"a/b/c": b"1", "a/d": b"2"}
        assert files.everything(with_links, 1, 10) is None
        assert files.everything(with_links, 10, 1) is None
    finally:
        os.close(with_links)
