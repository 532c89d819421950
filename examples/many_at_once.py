"""asyncio: start a few processes, and see them end in the order in which they do."""

from __future__ import annotations

import asyncio

import pysup
from pysup.model import EventsRequest, ExecRequest, StartRequest


async def main() -> None:
    async with pysup.AsyncLocalSupervisor() as supervisor:
        await supervisor.start(StartRequest("jobs"))
        async with await supervisor.events(EventsRequest("jobs")) as events:
            for number in range(5):
                script = f"sleep 0.{5 - number}; exit {number}"
                await supervisor.exec(
                    ExecRequest(domain="jobs", name=f"job-{number}", path="/bin/sh", args=["-c", script])
                )
            for _ in range(5):
                end = (await events.read(timeout=60)).event
                print(f"{end.name}: {end.cause} with status {end.exit_status}")


if __name__ == "__main__":
    asyncio.run(main())
