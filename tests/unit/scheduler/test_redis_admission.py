"""Redis out of reach is AdmissionUnavailable, however its client says it."""

import pytest

from cinnabar_common.redis_connection import connect
from cinnabar_local.ports import Ports
from cinnabar_scheduler.adapters.redis_admission import RedisAdmission
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
