"""Measurements of the whole suite, and of its peers, in one run."""
