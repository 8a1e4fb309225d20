"""The scheduler: queue, leases, retries and recovery; all of its state is in Redis."""
