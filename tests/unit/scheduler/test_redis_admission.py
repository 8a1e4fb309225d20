"""Redis out of reach is AdmissionUnavailable, however its client says it; and what its keys are called."""

import pytest

from cinnabar_common.redis_connection import connect
from cinnabar_local.ports import Ports
from cinnabar_scheduler.adapters.redis_admission import AdmissionKeys, RedisAdmission
from cinnabar_scheduler.admission import AdmissionUnavailable
from tests.support.scheduler_admission import charge, claim, settlement
from tests.support.scheduler_queue import ManualClock


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_nobody_there(scheme: str) -> None:
    redis = connect(f"{scheme}://127.0.0.1:{Ports().of('nobody')}", timeout_seconds=0.2)
    store = RedisAdmission(redis, ManualClock())
    try:
        with pytest.raises(AdmissionUnavailable):
            await store.admit("uni", [claim(charge(1))])
        with pytest.raises(AdmissionUnavailable):
            await store.settle("uni", [settlement("k", "r", b"a")])
        with pytest.raises(AdmissionUnavailable):
            await store.ping()
    finally:
        await redis.aclose()


def test_names_of_keys_tell_nobody() -> None:
    keys, others = AdmissionKeys("uni"), AdmissionKeys("other")
    names = [
        keys.limit(charge(1, level="user", bucket="user:ann")),
        keys.limit(charge(1, level="user", bucket="user:bob")),
        keys.limit(charge(1, level="user-method", bucket="method:ann:CreateSubmission")),
        keys.key("ann", "homework-of-ann"),
        keys.key("ann", "k"),
        keys.key("bob", "k"),
        others.key("ann", "k"),
    ]
    assert len(set(names)) == len(names)
    assert all("{limits:uni}" in name for name in names[:-1])
    assert not any(who in name for name in names for who in ("ann", "bob", "homework"))
    # Without the tenant they would be the same in both.
    assert names[4].rpartition(":")[2] != names[-1].rpartition(":")[2]
    assert keys.key("a", "b\0c") == AdmissionKeys("uni").key("a", "b\0c")
