"""Ids and names, settings, page tokens, health."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from grpc_health.v1 import health_pb2

from cinnabar_common import names, pagination
from cinnabar_common.channels import target_of
from cinnabar_common.config import ConfigError, load
from cinnabar_common.errors import InvalidRequest, PageTokenInvalid
from cinnabar_common.health import HealthBoard
from cinnabar_common.names import AssignmentName, Bucket, CourseName, SubmissionName


def test_ids_rise_and_carry_their_bucket() -> None:
    ids = [names.new_id(Bucket(1023)) for _ in range(5_000)]
    assert ids == sorted(set(ids))
    assert {names.id_bucket(one) for one in ids} == {1023}
    assert all(names.is_id(one) for one in ids)


def test_ids_rise_though_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = names.new_id(Bucket(0))
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert names.new_id(Bucket(0)) > before


@pytest.mark.parametrize("text", ["", "x", "0" * 26, "0" * 26 + "-400", "0" * 26 + "-00G", "A" * 26 + "-001"])
def test_foreign_ids_have_no_bucket(text: str) -> None:
    assert names.id_bucket(text) is None


def test_buckets_are_stable_and_even() -> None:
    assert names.bucket_of("t1", "ada") == names.bucket_of("t1", "ada")
    assert names.bucket_of("t1", "ada") != names.bucket_of("t2", "ada")
    counts = [0] * 4
    for number in range(4_000):
        counts[names.bucket_of("t1", f"student-{number}") * 4 // names.BUCKETS] += 1
    assert min(counts) > 850


@pytest.mark.parametrize("text", ["s1", "/q1", "s1/", "s1/Q", "s1/q1/more", ""])
def test_malformed_task_ids(text: str) -> None:
    with pytest.raises(ValueError, match="^" + text + "$"):
        names.split_task_id(text)


def test_names_go_both_ways() -> None:
    assert names.split_task_id(names.task_id("s1", "q1")) == ("s1", "q1")
    for name in (CourseName("a"), AssignmentName("a", "b"), SubmissionName("a", "b", "c")):
        assert type(name).parse(str(name)) == name
    assert SubmissionName("a", "b", "c").parent == AssignmentName("a", "b")


@pytest.mark.parametrize(
    "text",
    ["", "courses", "courses/", "courses/A", "course/a", "courses/a/", "/courses/a", "courses/" + "x" * 64],
)
def test_malformed_names(text: str) -> None:
    assert CourseName.parse(text) is None
    assert AssignmentName.parse(text) is None
    assert SubmissionName.parse(text + "/assignments/b/submissions/c") is None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    url: str
    count: int
    ratio: float = 0.5
    flag: bool = False
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ratio > 1:
            raise ValueError("S_RATIO must be at most 1")


def test_settings_are_read_with_their_types(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://x\n")
    env = {"S_URL": f"file:{secret}", "S_COUNT": "3", "S_FLAG": "Yes", "S_NAMES": "a, b,", "OTHER": "x"}
    assert load(Settings, prefix="S_", env=env) == Settings(
        url="redis://x", count=3, flag=True, names=("a", "b")
    )


def test_all_problems_are_told_at_once() -> None:
    env = {"S_COUNT": "many", "S_RATIO": "x", "S_FLAG": "maybe", "S_TYPO": "1", "S_NAMES": "file:/nowhere/x"}
    with pytest.raises(ConfigError) as refused:
        load(Settings, prefix="S_", env=env)
    assert refused.value.problems == [
        "S_URL is required",
        "S_COUNT='many' is not a whole number",
        "S_RATIO='x' is not a number",
        "S_FLAG='maybe' is not true or false",
        "S_NAMES: No such file or directory",
        "S_TYPO is not a setting",
    ]


def test_rules_between_settings() -> None:
    with pytest.raises(ConfigError, match="S_RATIO must be at most 1"):
        load(Settings, prefix="S_", env={"S_URL": "x", "S_COUNT": "1", "S_RATIO": "2"})


def test_page_tokens_go_both_ways_and_are_bound_to_their_list() -> None:
    token = pagination.encode_token("中文-01", "t1", "courses/a")
    assert pagination.decode_token(token, "t1", "courses/a") == "中文-01"
    assert pagination.decode_token("", "t1") == ""
    for parameters in (("t2", "courses/a"), ("t1",), ("t1", "courses/a", "")):
        with pytest.raises(PageTokenInvalid):
            pagination.decode_token(token, *parameters)


@pytest.mark.parametrize("token", ["x", "!!!!", "AAAA", "é", "A" * 11, "a b"])
def test_malformed_page_tokens(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        pagination.decode_token(token, "t1")


def test_page_sizes() -> None:
    assert [pagination.page_size(size) for size in (0, 1, 1000, 5000)] == [50, 1, 1000, 1000]
    with pytest.raises(InvalidRequest):
        pagination.page_size(-1)


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("storage:50051", "storage:50051"),
        ("127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
    ],
)
def test_targets(addresses: str, target: str) -> None:
    assert target_of(addresses) == target


async def test_health_says_which_dependency_is_away_and_serves_all_the_same() -> None:
    down = True

    async def redis() -> None:
        if down:
            raise OSError("refused")

    async def storage() -> None:
        return None

    board = HealthBoard({"redis": redis, "storage": storage})

    async def status(service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        response = await cast("Any", board.servicer).Check(request, None)
        return response.status

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async with board.running():
        assert [await status(name) for name in ("", "redis", "storage")] == [serving, not_serving, serving]
        down = False
        assert await board.run_once() == {"redis": True, "storage": True}
        assert await status("redis") == serving
    assert [await status(name) for name in ("", "redis", "storage")] == [not_serving] * 3
