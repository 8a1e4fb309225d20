"""The audit, and who follows it."""
