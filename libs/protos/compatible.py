"""Checks the protos with buf: lint, format, and that nothing breaks what went before.

"Before" is the branch point with ``origin/main`` where there is one, else the
last commit: a breaking change never gets in, neither committed nor not.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOGLEAPIS = ROOT / ".build/googleapis"
BASE = ROOT / ".build/base"
BUF = Path(sys.executable).parent / "buf"


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


def base_commit() -> str | None:
    """The commit to compare with; None outside of a repository."""
    for reference in (("merge-base", "HEAD", "origin/main"), ("rev-parse", "HEAD")):
        answer = git(*reference)
        if answer.returncode == 0:
            return answer.stdout.decode().strip()
    return None


def lay_out_base(commit: str) -> bool:
    """Puts the protos of a commit, with what they import, beside ours; False when it has none."""
    archive = git("archive", commit, "protos", "buf.yaml")
    if archive.returncode != 0:
        return False
    shutil.rmtree(BASE, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(BASE, filter="data")
    shutil.copytree(GOOGLEAPIS, BASE / ".build/googleapis")
    return True


def main() -> int:
    commands = [["lint"], ["format", "-d", "--exit-code", "protos"]]
    commit = base_commit()
    if commit is not None and lay_out_base(commit):
        commands.append(["breaking", "--against", str(BASE)])
    return max(subprocess.run([BUF, *command], cwd=ROOT, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
