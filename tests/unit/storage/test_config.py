"""What the environment must say."""

from __future__ import annotations

import pytest

from cinnabar_common.config import ConfigError, load
from cinnabar_storage.config import StorageConfig


def problems(**env: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(StorageConfig, prefix="STORAGE_", env=env)
    return refused.value.problems


def test_shards_and_their_replicas_come_from_one_variable() -> None:
    config = load(
        StorageConfig,
        prefix="STORAGE_",
        env={"STORAGE_SHARDS": "postgresql://a/x|postgresql://b/x,postgresql://c/x"},
    )
    assert config.urls() == [("postgresql://a/x", "postgresql://b/x"), ("postgresql://c/x",)]


def test_shards_are_needed() -> None:
    assert problems() == ["STORAGE_SHARDS is required"]
    assert problems(STORAGE_SHARDS="") == ["STORAGE_SHARDS names no shard"]


def test_urls_are_checked_without_being_shown() -> None:
    [problem] = problems(STORAGE_SHARDS="postgresql://a/x,mysql://user:secret@b/x,postgresql://c/x|")
    assert problem == "STORAGE_SHARDS: shard 1, 2 is not postgresql://…|postgresql://…"


@pytest.mark.parametrize("name", ["POOL_SIZE", "REVISION_CACHE_ENTRIES", "STATEMENT_SECONDS"])
def test_bounds_cannot_be_switched_off(name: str) -> None:
    assert "must be" in problems(**{"STORAGE_SHARDS": "postgresql://a/x", f"STORAGE_{name}": "0"})[0]


def test_a_misspelled_setting_is_noticed() -> None:
    assert problems(STORAGE_SHARDS="postgresql://a/x", STORAGE_POOLSIZE="3") == [
        "STORAGE_POOLSIZE is not a setting"
    ]
