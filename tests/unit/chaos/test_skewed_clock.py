"""The launcher that shifts the clock of what it runs."""

import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

LAUNCHER = str(Path(__file__).parents[2] / "support" / "skewed_clock.py")
MODULE = """\
import sys, time
print(sys.argv[1:], flush=True)
for line in sys.stdin:
    print(time.time(), time.time_ns(), time.monotonic(), flush=True)
"""


@contextmanager
def launched(folder: Path) -> Generator["subprocess.Popen[str]"]:
    """A module that tells its clocks for each line it is given."""
    (folder / "clockwork.py").write_text(MODULE, "utf-8")
    with subprocess.Popen(
        [sys.executable, LAUNCHER, str(folder / "offset"), "-m", "clockwork", "one", "two"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def clocks(process: "subprocess.Popen[str]") -> tuple[float, float, float]:
    """Its time, time_ns and monotonic, in seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    now, now_ns, monotonic = process.stdout.readline().split()
    return float(now), int(now_ns) / 1e9, float(monotonic)


def test_the_clock_is_off_from_the_start_and_steps_at_a_signal(tmp_path: Path) -> None:
    (tmp_path / "offset").write_text("600", "utf-8")
    with launched(tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "['one', 'two']\n"
        for offset in (600.0, -600.0, 0.0):
            (tmp_path / "offset").write_text(f"{offset}", "utf-8")
            process.send_signal(signal.SIGUSR1)
            now, now_ns, monotonic = clocks(process)
            assert abs(now - offset - time.time()) < 30
            assert abs(now_ns - now) < 5
            assert abs(monotonic - time.monotonic()) < 30


def test_without_a_file_the_clock_is_right(tmp_path: Path) -> None:
    with launched(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert abs(clocks(process)[0] - time.time()) < 30
