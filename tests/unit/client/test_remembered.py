"""What the command line remembers of its last command."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinnabar_client.cli.remembered import MAX_BYTES, Remembered


@pytest.mark.parametrize(
    ("variables", "below"),
    [
        ({"CINNABAR_HOME": "{}/own", "XDG_STATE_HOME": "{}/x"}, "own"),
        ({"XDG_STATE_HOME": "{}/x", "HOME": "{}/h"}, "x/cinnabar"),
        ({"HOME": "{}/h"}, "h/.local/state/cinnabar"),
    ],
)
def test_it_is_kept_for_its_owner_alone(tmp_path: Path, variables: dict[str, str], below: str) -> None:
    environment = {name: value.format(tmp_path) for name, value in variables.items()}
    mine = Remembered("host:1", "dev.t.student.ann", environment)
    assert mine.read() == ""
    for token in ("first", "second"):
        mine.write(token)
        assert mine.read() == token
    [path] = (tmp_path / below).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "ann" not in path.name
    mine.write("")
    assert (mine.read(), list((tmp_path / below).iterdir())) == ("", [])


def test_each_address_and_credential_has_its_own(tmp_path: Path) -> None:
    environment = {"CINNABAR_HOME": str(tmp_path)}
    callers = [("host:1", "ann"), ("host:1", "bob"), ("host:2", "ann")]
    for number, caller in enumerate(callers):
        Remembered(*caller, environment).write(f"token-{number}")
    assert [Remembered(*caller, environment).read() for caller in callers] == [
        "token-0",
        "token-1",
        "token-2",
    ]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (MAX_BYTES + 1), b"a\x00b", b"a\nb"])
def test_what_is_no_token_is_none(tmp_path: Path, content: bytes) -> None:
    mine = Remembered("host:1", "ann", {"CINNABAR_HOME": str(tmp_path)})
    mine.write("good")
    [path] = tmp_path.iterdir()
    path.write_bytes(content)
    assert mine.read() == ""


def test_where_nothing_can_be_kept_nothing_fails(tmp_path: Path) -> None:
    Remembered("host:1", "ann", {}).write("token")
    assert Remembered("host:1", "ann", {}).read() == ""
    (tmp_path / "file").write_text("in the way")
    blocked = Remembered("host:1", "ann", {"CINNABAR_HOME": str(tmp_path / "file")})
    blocked.write("token")
    assert blocked.read() == ""
