"""A host program of a given size that starts tiny processes; speaks as limit/loop.h does.

usage: hosts.py TINY MODE MIB; the parts: exec to event of pysup, subprocess.Popen to wait, and os.fork, exec and wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise

import pysup
from pysup.model import EventsRequest, ExecRequest, StartRequest


def main() -> None:
    tiny, mode, mib = sys.argv[1:]
    ballast = bytearray(int(mib) << 20)
    for page in range(0, len(ballast), 4096):
        ballast[page] = 1
    clock = time.perf_counter_ns
    request = ExecRequest(name="one", domain="host", path=tiny, env={})
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        supervisor.start(StartRequest("host"))
        with supervisor.events(EventsRequest("host")) as events:
            for line in sys.stdin:
                for _ in range(int(line)):
                    times = [clock()]
                    supervisor.exec(request)
                    events.read()
                    times.append(clock())
                    subprocess.Popen([tiny], env={}).wait()
                    times.append(clock())
                    pid = os.fork()
                    if not pid:
                        os.execve(tiny, [tiny], {})
                    os.waitpid(pid, 0)
                    times.append(clock())
                    print(*(after - before for before, after in pairwise(times)))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
