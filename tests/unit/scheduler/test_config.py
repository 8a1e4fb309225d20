"""Settings that make no sense are refused at the start."""

import pytest

from cinnabar_common.config import ConfigError, load
from cinnabar_scheduler.config import SchedulerConfig

NEEDED = {"SCHEDULER_REDIS_URL": "redis://localhost", "SCHEDULER_STORAGE_TARGET": "localhost:50051"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SCHEDULER_METRICS_LISTEN", "9464"),
        ("SCHEDULER_METRICS_LISTEN", "0.0.0.0:http"),
        ("SCHEDULER_METRICS_LISTEN", "0.0.0.0:70000"),
        ("SCHEDULER_SILENCE_LIMIT_SECONDS", "14"),
        ("SCHEDULER_LEASE_SECONDS", "0.5"),
    ],
)
def test_a_bad_setting_is_named(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        load(SchedulerConfig, prefix="SCHEDULER_", env=NEEDED | {setting: value})


@pytest.mark.parametrize("listen", ["", "0.0.0.0:9464", "[::1]:0"])
def test_metrics_may_be_off(listen: str) -> None:
    config = load(SchedulerConfig, prefix="SCHEDULER_", env=NEEDED | {"SCHEDULER_METRICS_LISTEN": listen})
    assert config.metrics_listen == listen
