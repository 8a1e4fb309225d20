"""A policy file is read again when it changes, and a bad one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinnabar_scheduler.adapters.policy_file import PolicyFile, PolicyUnreadable
from cinnabar_scheduler.policy import Policy


def weight(file: PolicyFile) -> int:
    return file.current.tenant("acme").weight


async def test_a_change_is_seen_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[tenants.named.acme]\nweight = 2")
    file = PolicyFile(path)
    told: list[int] = []
    file.on_change(lambda: told.append(weight(file)))
    assert not file.check()
    path.write_text("[tenants.named.acme]\nweight = 3")
    assert file.check()
    assert not file.check()
    assert (told, weight(file)) == ([3], 3)


async def test_a_bad_file_leaves_the_policy_and_fails_the_health(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[tenants.named.acme]\nweight = 2")
    file = PolicyFile(path)
    path.write_text("[tenants.named.acme]\nweight = 2000")
    assert not file.check()
    assert weight(file) == 2
    with pytest.raises(PolicyUnreadable, match=r"tenants\.named\.acme\.weight"):
        await file.healthy()
    path.unlink()
    assert not file.check()
    with pytest.raises(PolicyUnreadable):
        await file.healthy()
    path.write_text("[tenants.named.acme]\nweight = 2")
    assert not file.check()  # what was in force all along
    await file.healthy()


def test_no_scheduler_starts_on_a_bad_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(PolicyUnreadable):
        PolicyFile(path)
    path.write_text("oops")
    with pytest.raises(PolicyUnreadable, match="TOML"):
        PolicyFile(path)


def test_no_file_is_the_defaults() -> None:
    assert PolicyFile(None).current == Policy()
