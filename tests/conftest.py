"""Fixtures for every test: the real servers, started when the first test asks for them."""

import signal

pytest_plugins = ["tests.support.servers", "tests.support.suite"]

# A shell without job control starts background jobs with SIGINT ignored, and
# processes inherit that: those under test could not be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
