"""Rules that decide exactly: an answer in, a verdict out. No I/O, no messages."""
