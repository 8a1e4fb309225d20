"""A worker that takes one lease and keeps it until it is killed: ``python -m bench.worker ADDRESS QUEUE``."""

from __future__ import annotations

import asyncio
import sys

from bench.faults import hold, next_lease, ready_worker


async def main(address: str, queue: str) -> None:
    call = await ready_worker(address, queue, "bench-victim")
    lease = await next_lease(call)
    print(lease.lease_token, flush=True)
    await hold(call, lease.lease_token)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
