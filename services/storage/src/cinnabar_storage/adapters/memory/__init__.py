"""Adapters in memory, for tests."""
