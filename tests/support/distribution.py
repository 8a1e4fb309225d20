"""Which tests run in one worker, and in which order workers take them (``make test`` runs several).

Each worker has session fixtures of its own. Tests of one file stay together, and so do those that need the
same costly servers: the whole suite, Postgres. What takes long begins early, so that nobody waits for it at
the end.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_GROUPS = {
    "storage": (
        "tests/integration/storage/",
        "tests/contract/storage/",
        "tests/e2e/stack/test_servers.py",
    ),
    "gateway": (
        "tests/integration/gateway/",
        "tests/contract/gateway/",
        "tests/integration/scheduler/test_models.py",
        "tests/integration/scheduler/test_recovery.py",
    ),
    "suite": (
        "tests/tour/",
        "tests/integration/client/test_demo.py",
        "tests/e2e/test_bad_input_over_rest.py",
        "tests/e2e/test_conformance.py",
        "tests/e2e/test_consistency_over_rest.py",
        "tests/e2e/test_erasure.py",
        "tests/e2e/test_files.py",
        "tests/e2e/test_limits.py",
        "tests/e2e/test_operating.py",
        "tests/e2e/test_programs.py",
        "tests/e2e/test_programs_over_rest.py",
        "tests/e2e/test_readme.py",
        "tests/e2e/stack/test_stack.py",
    ),
}
_ORDER = (
    "tests/chaos/",
    "tests/e2e/test_bench.py",
    "storage",
    "suite",
    "gateway",
    "tests/e2e/stack/test_runner.py",
    "tests/integration/sandbox/",
    "tests/integration/client/",
    "tests/integration/",
    "tests/e2e/",
    "tests/contract/",
    "tests/property/",
    "tests/",
)


def group_of(nodeid: str) -> str:
    """What the test ``nodeid`` must share a worker with: a name that is equal for all of these."""
    for name, starts in _GROUPS.items():
        if nodeid.startswith(starts):
            return name
    return nodeid.partition("::")[0]


def rank(nodeid: str) -> int:
    """When the test ``nodeid`` begins, counted from 0; tests of one rank keep their order."""
    group = group_of(nodeid)
    return next(place for place, start in enumerate(_ORDER) if group.startswith(start))


class Distribution(LoadScopeScheduling):
    """Hands a worker one group after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution:
    """See xdist."""
    config.option.loadscopereorder = False
    return Distribution(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """See pytest; one process alone keeps its order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))
