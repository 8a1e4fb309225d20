"""Which database a bucket is in, and how it gets to another one."""
