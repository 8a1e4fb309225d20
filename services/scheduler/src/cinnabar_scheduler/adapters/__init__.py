"""Adapters of the scheduler: one file per outside thing."""
