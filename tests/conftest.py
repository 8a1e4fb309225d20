"""Fixtures for every test: the real servers, started when the first test asks for them."""

pytest_plugins = ["tests.support.servers", "tests.support.suite"]
