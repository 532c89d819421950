"""Run code under limits and say what became of it: finished, failed, crashed, too slow or too big.

The limits need cgroups (`pysup doctor` tells whether they can be had); without them only the time-out is
left, and the program says so.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

import pysup
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    EventsRequest,
    ExecRequest,
    StartRequest,
    StopRequest,
)

SUBMISSIONS = {
    "good": "print(sum(range(1000)))",
    "raises": "1 / 0",
    "crashes": "import os; os.abort()",
    "slow": "while True: pass",
    "greedy": "held = [b'x' * 2**20 for _ in range(128)]",
}
SECONDS = 2.0
LIMITS = CgroupProfileConfig(cpu_limit=1.0, memory_limit_bytes=64 * 2**20)


class Output:
    """Collects what a process writes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def judge(supervisor: pysup.LocalSupervisor, name: str, code: str, limits: CgroupProfileConfig) -> str:
    """Runs `code` in a domain of its own; gives the verdict."""
    profiles = CgroupProfiles(throttled=limits, unthrottled=limits)
    supervisor.configure(ConfigureRequest(name, cgroup_profiles=profiles, start_profile="unthrottled"))
    supervisor.start(StartRequest(name))
    output = Output()
    try:
        with supervisor.events(EventsRequest(name)) as events:
            supervisor.exec(
                ExecRequest(
                    domain=name,
                    name="main",
                    path=sys.executable,
                    args=["-I", "-c", code],
                    env={},
                    stdout=output,
                )
            )
            end = events.read(timeout=SECONDS).event
    except TimeoutError:
        verdict = f"too slow: not done in {SECONDS:g} s"
    else:
        if end.cause == "oom_killed":
            verdict = f"too big: more than {limits.memory_limit_bytes >> 20} MiB"
        elif end.signo is not None:
            verdict = f"crashed with signal {end.signo}"
        elif end.exit_status:
            verdict = f"failed with status {end.exit_status}"
        else:
            verdict = f"finished, and printed {output.data.decode().strip()!r}"
    # Ends what still runs, and tells what all of it cost.
    deadline = datetime.now(timezone.utc) + timedelta(seconds=5)
    cost = supervisor.stop(StopRequest(name, deadline)).cycle_delta_metrics
    return f"{verdict} ({cost.domain_cpu_run_ns / 1e9:.2f} s of CPU)"


def main() -> None:
    with pysup.LocalSupervisor() as supervisor:
        choices = {each.need: each for each in supervisor.providers()}
        limits = LIMITS
        for need in ("cpu_limit", "memory_limit"):
            if choices[need].choice == "none":
                print(f"no limits, only a time-out: {choices[need].reason}")
                limits = CgroupProfileConfig()
                break
        for name, code in SUBMISSIONS.items():
            print(f"{name:8}{judge(supervisor, name, code, limits)}", flush=True)


if __name__ == "__main__":
    main()
