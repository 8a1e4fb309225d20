"""A worker that takes one lease and keeps it until it is killed: ``python -m bench.worker ADDRESS QUEUE``."""

from __future__ import annotations

import asyncio
import sys

from bench.faults import hold_one


async def main(address: str, queue: str) -> None:
    token = await hold_one(address, queue, "bench-victim")
    print(token, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
