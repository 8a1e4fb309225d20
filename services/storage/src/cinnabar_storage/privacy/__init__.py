"""Erasure of one student's data, and retention."""
