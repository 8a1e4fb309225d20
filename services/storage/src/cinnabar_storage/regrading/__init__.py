"""Grading again: campaigns, shadows and their reports."""
