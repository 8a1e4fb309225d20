"""What is remembered of reads, here and in Redis, and for how long it may be believed."""
