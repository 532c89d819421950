"""A worker that runs only while there is a request: frozen in between, and billed by the cycle.

The worker upper-cases lines. Between two requests it cannot run at all, whatever it left in the background;
and each freeze tells what the request cost.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timedelta, timezone

import pysup
from pysup.model import ExecRequest, FreezeRequest, StartRequest, StopRequest, ThawRequest

WORKER = """
import sys
for line in sys.stdin:
    sum(range(1_000_000))  # the work
    print(line.strip().upper(), flush=True)
"""


def main() -> None:
    with pysup.LocalSupervisor() as supervisor:
        supervisor.start(StartRequest("worker"))
        worker_reads, we_write = os.pipe()
        we_read, worker_writes = os.pipe()
        with open(worker_reads, "rb") as stdin, open(worker_writes, "wb") as stdout:
            supervisor.exec(
                ExecRequest(
                    domain="worker",
                    name="main",
                    path=sys.executable,
                    args=["-c", WORKER],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=sys.stderr,
                )
            )
        with open(we_write, "w") as requests, open(we_read) as answers:
            supervisor.freeze(FreezeRequest("worker"))
            for text in ("first", "second", "third"):
                supervisor.thaw(ThawRequest("worker"))
                requests.write(text + "\n")
                requests.flush()
                answer = answers.readline().strip()
                cost = supervisor.freeze(FreezeRequest("worker")).cycle_delta_metrics
                cpu_ms, wall_ms = cost.domain_cpu_run_ns / 1e6, cost.domain_run_ns / 1e6
                print(f"{text} -> {answer}: {cpu_ms:.1f} ms of CPU in {wall_ms:.1f} ms")
                time.sleep(0.1)  # no request: costs nothing
        supervisor.stop(StopRequest("worker", datetime.now(timezone.utc) + timedelta(seconds=5)))


if __name__ == "__main__":
    main()
