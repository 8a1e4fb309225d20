"""Fixtures for every test: the real servers, started when the first test asks for them."""

import signal

from hypothesis import HealthCheck, settings

import cinnabar_local as cinnabar_local  # before gRPC, whose behaviour around forks it sets

pytest_plugins = [
    "tests.support.distribution",
    "tests.support.servers",
    "tests.support.suite",
    "tests.support.migrated",
    "tests.support.objects",
    "tests.support.go_tools",
]

# How long an example takes says more about the machine than about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# A shell without job control starts background jobs with SIGINT ignored, and
# processes inherit that: those under test could not be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
