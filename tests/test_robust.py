"""Concurrency and load: many threads, storms of freezes, what will not die."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import support
from support import MODES, PATIENCE, children, mode_problem, possessions, soon, until

import pysup
from pysup.errors import FailureError, InvalidStateError, NoSuchEntityError, SupervisorError
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    Event,
    EventsRequest,
    ExecRequest,
    ExecUser,
    FreezeRequest,
    KillRequest,
    StartRequest,
    StopRequest,
    TerminateRequest,
    ThawRequest,
)

pytestmark = pytest.mark.kernel

# Under emulation everything takes ten times as long.
SLOW = 10 if support.EMULATED else 1


class Driver(support.Driver):
    """One that is let go of with its test."""

    def __init__(self, supervisor: Any, domain: str = "d") -> None:
        super().__init__(supervisor, domain)
        self.made.discard(self)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    if problem := mode_problem(request.param):
        pytest.skip(problem)
    return request.param


@pytest.fixture
def driver(mode: str) -> Iterator[Driver]:
    before = possessions()["cgroups"], possessions()["children"]
    with pysup.LocalSupervisor(cgroups=mode, freeze_timeout=PATIENCE, queue_length=8192) as supervisor:
        yield Driver(supervisor)
    until(lambda: (possessions()["cgroups"], possessions()["children"]) == before)


def events(driver: Driver, count: int) -> dict[str, Event]:
    """So many events, each of another process, and no more."""
    found: dict[str, Event] = {}
    for _ in range(count):
        event = driver.event()
        assert event.event.type == "process_termination"
        assert event.event.name not in found
        found[event.event.name or ""] = event
    driver.quiet()
    return found


def processes_of(marker: str) -> list[int]:
    """Who has this word among its arguments or in its environment, the dead not counted."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                directory = pathlib.Path("/proc", entry)
                if marker.encode() in directory.joinpath("environ").read_bytes():
                    found.append(int(entry))
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    word = f"PYSUP_TEST_MARK={os.getpid()}.{random.randrange(10**9)}"
    yield word
    assert processes_of(word) == []


def environment(marker: str) -> dict[str, str]:
    key, _, value = marker.partition("=")
    return {key: value, "PATH": "/usr/bin:/bin"}


# ---- many ----


def test_one_after_the_other(driver: Driver) -> None:
    count = 1000 // SLOW
    for number in range(count):
        driver.sh(f"p{number}", f"exit {number % 256}")
    for name, event in events(driver, count).items():
        assert event.event.cause == "exited"
        assert event.event.exit_status == int(name[1:]) % 256


def test_at_once(driver: Driver) -> None:
    count = 200 // (SLOW if SLOW == 1 else 4)

    def start(number: int) -> None:
        script = f"exit {number}" if number % 3 else f"kill -{1 + number % 2 * 14} $$"
        driver.sh(f"p{number}", script)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(start, range(count)))
    for name, event in events(driver, count).items():
        number = int(name[1:])
        if number % 3:
            assert (event.event.cause, event.event.exit_status) == ("exited", number)
        else:
            assert (event.event.cause, event.event.signo) == ("signaled", 1 + number % 2 * 14)


def test_many_domains_at_once(mode: str) -> None:
    count = 40 // (1 if SLOW == 1 else 4)
    with pysup.LocalSupervisor(cgroups=mode, freeze_timeout=PATIENCE) as supervisor:

        def live(number: int) -> None:
            driver = Driver(supervisor, f"d{number}")
            driver.exec("long", "/bin/sleep", "600")
            driver.sh("short", f"exit {number}")
            assert driver.ended("short") == ("exited", number)
            supervisor.freeze(FreezeRequest(driver.domain))
            supervisor.thaw(ThawRequest(driver.domain))
            supervisor.freeze(FreezeRequest(driver.domain))
            driver.stop()
            assert driver.ended("long") == ("signaled", 9)
            supervisor.start(StartRequest(driver.domain))
            driver.sh("short", f"exit {number + 1}")
            assert driver.ended("short") == ("exited", number + 1)
            driver.quiet(0)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(live, range(count)))


def test_many_alive_in_one_domain(driver: Driver) -> None:
    count = 100 // (1 if SLOW == 1 else 4)
    for number in range(count):
        driver.exec(f"p{number}", "/bin/sleep", "600")
    driver.supervisor.freeze(FreezeRequest("d"))
    driver.supervisor.thaw(ThawRequest("d"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(driver.kill, [f"p{number}" for number in range(count // 2)]))
    assert all(event.event.cause == "signaled" for event in events(driver, count // 2).values())
    driver.stop()
    assert all(event.event.cause == "signaled" for event in events(driver, count - count // 2).values())


# ---- storms ----


class Storm:
    """Threads that call again and again for a while; other than the allowed errors fails the test."""

    def __init__(self, *allowed: type[Exception]) -> None:
        self.allowed = allowed
        self.over = threading.Event()
        self.calls: Counter[str] = Counter()
        self.wrong: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def add(self, name: str, call: Callable[[], Any]) -> None:
        def run() -> None:
            while not self.over.is_set():
                try:
                    call()
                    self.calls[name] += 1
                except self.allowed:
                    time.sleep(0)
                except BaseException as error:
                    self.wrong.append(error)
                    self.over.set()

        self.threads.append(threading.Thread(target=run, name=name))

    def blow(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive(), f"{thread.name} hangs"
        if self.wrong:
            raise self.wrong[0]


def test_freeze_and_thaw_while_others_exec_and_kill(driver: Driver) -> None:
    supervisor = driver.supervisor
    lock, started, killed = threading.Lock(), [], []

    def toggle() -> None:
        supervisor.freeze(FreezeRequest("d"))
        supervisor.thaw(ThawRequest("d"))

    def start() -> None:
        with lock:
            name = f"p{len(started)}"
            driver.exec(name, "/bin/sleep", "600")
            started.append(name)

    def kill() -> None:
        with lock:
            if len(killed) == len(started):
                return
            name = started[len(killed)]
            killed.append(name)
        driver.kill(name)

    storm = Storm(InvalidStateError)
    storm.add("toggle", toggle)
    storm.add("start", start)
    storm.add("kill", kill)
    storm.add("terminate", lambda: supervisor.terminate(TerminateRequest(name=(started or ["x"])[-1], domain="d")))
    storm.allowed = (InvalidStateError, NoSuchEntityError)
    storm.blow(1.0 * SLOW)
    assert all(storm.calls[name] for name in ("toggle", "start", "kill")), storm.calls
    with contextlib.suppress(InvalidStateError):
        supervisor.thaw(ThawRequest("d"))
    driver.stop()
    assert set(events(driver, len(started))) == set(started)


def test_every_call_at_once_and_exit_in_the_middle(mode: str) -> None:
    """Whatever the order is: typed errors, no crash, no hang, nothing left."""
    before = possessions()["cgroups"], possessions()["children"]
    for seed in range(4):
        supervisor = pysup.LocalSupervisor(cgroups=mode)
        storm = Storm(SupervisorError, TimeoutError, EOFError)
        numbers = iter(range(10**9))
        dice = random.Random(seed)

        def execute(supervisor: Any = supervisor, numbers: Any = numbers, dice: Any = dice) -> None:
            request = ExecRequest(name=f"p{next(numbers)}", domain=dice.choice("abc"), path="/bin/sleep", args=["9"])
            supervisor.exec(request)
            if dice.random() < 0.7:
                supervisor.kill(KillRequest(name=request.name, domain=request.domain, deadline=soon()))

        def choose(call: Callable[..., Any], make: Callable[..., Any], dice: Any = dice) -> Callable[[], Any]:
            return lambda: call(make(dice.choice("abc")))

        storm.add("start", choose(supervisor.start, StartRequest))
        storm.add("configure", choose(supervisor.configure, ConfigureRequest))
        storm.add("freeze", choose(supervisor.freeze, FreezeRequest))
        storm.add("thaw", choose(supervisor.thaw, ThawRequest))
        storm.add("stop", choose(supervisor.stop, lambda name: StopRequest(name, soon(2 * SLOW))))
        storm.add("exec", execute)
        storm.add("exec too", execute)
        storm.add("read", lambda supervisor=supervisor: supervisor.events(EventsRequest("a")).read(0.01))
        storm.add("providers", lambda supervisor=supervisor: supervisor.providers())
        timer = threading.Timer(0.3 * SLOW, supervisor.exit)
        timer.start()
        storm.blow(0.4 * SLOW)
        timer.join()
        supervisor.exit()
        with pytest.raises(InvalidStateError, match="has ended"):
            supervisor.start(StartRequest("a"))
        until(lambda: (possessions()["cgroups"], possessions()["children"]) == before)


def test_exit_from_several_threads(mode: str) -> None:
    for _ in range(5):
        supervisor = pysup.LocalSupervisor(cgroups=mode)
        driver = Driver(supervisor)
        driver.exec("p", "/bin/sleep", "600")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: supervisor.exit(), range(4)))  # noqa: B023


# ---- what will not die ----

ESCAPEES = """
trap '' TERM HUP INT
(trap '' TERM HUP INT; setsid sh -c 'trap "" TERM HUP INT; sleep 600 & sleep 600 & wait; sleep 600' &) &
(setsid setsid sleep 600 &)
for i in 1 2 3 4 5; do (sleep 600 & sleep 600) & done
setsid sh -c '(sh -c "while :; do sleep 1; done" &)' &
echo ready
while :; do sleep 600; done
"""


def start_escapees(driver: Driver, marker: str, name: str = "p") -> None:
    read, write = os.pipe()
    with open(read, "rb") as output, open(write, "wb") as inside:
        driver.sh(name, ESCAPEES, env=environment(marker), stdout=inside)
        assert output.readline() == b"ready\n"
    until(lambda: len(processes_of(marker)) > 12)


def needs_setsid() -> None:
    if not any(os.access(f"{path}/setsid", os.X_OK) for path in ("/usr/bin", "/bin")):
        pytest.skip("there is no setsid(1) here")


def test_kill_reaches_every_descendant(driver: Driver, marker: str) -> None:
    needs_setsid()
    driver.exec("bystander", "/bin/sleep", "600")
    start_escapees(driver, marker)
    driver.kill("p")
    assert processes_of(marker) == []
    assert driver.ended("p") == ("signaled", 9)
    driver.quiet()
    driver.kill("bystander")
    assert driver.ended("bystander") == ("signaled", 9)


def test_terminate_that_is_ignored(driver: Driver, marker: str) -> None:
    needs_setsid()
    start_escapees(driver, marker)
    driver.supervisor.terminate(TerminateRequest(name="p", domain="d"))
    driver.quiet(0.1)
    driver.kill("p")
    assert driver.ended("p") == ("signaled", 9)


@pytest.mark.parametrize("frozen", [False, True])
def test_stop_reaches_what_outlived_its_process(driver: Driver, marker: str, frozen: bool) -> None:
    needs_setsid()
    driver.sh("gone", "(setsid sleep 600 &) ; sleep 600 & exit 3", env=environment(marker))
    assert driver.ended("gone") == ("exited", 3)
    start_escapees(driver, marker)
    if frozen:
        driver.supervisor.freeze(FreezeRequest("d"))
    driver.stop()
    assert processes_of(marker) == []
    assert driver.ended("p") == ("signaled", 9)
    driver.quiet()


def test_kill_in_a_frozen_domain(driver: Driver, marker: str) -> None:
    needs_setsid()
    script = "i=0; while :; do i=$((i+1)); done"
    driver.sh("counter", script)
    start_escapees(driver, marker)
    driver.supervisor.freeze(FreezeRequest("d"))
    driver.kill("p")
    assert processes_of(marker) == []
    assert driver.ended("p") == ("signaled", 9)
    with pytest.raises(InvalidStateError, match="frozen"):
        driver.sh("q", "exit 0")
    driver.quiet()  # it is frozen still
    metrics = driver.supervisor.thaw(ThawRequest("d"))
    assert metrics is None
    driver.kill("counter")
    assert driver.ended("counter") == ("signaled", 9)


BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@pytest.mark.root
@pytest.mark.parametrize("end", ["kill", "stop", "freeze and kill"])
def test_fork_bomb(driver: Driver, marker: str, end: str) -> None:
    """Bounded by the kernel: a user of its own, and its limit of processes."""
    python = next((each for each in ("/usr/bin/python3", "/bin/python3") if os.access(each, os.X_OK)), None)
    if python is None:
        pytest.skip("there is no Python that another user could run")
    limit = 100 // (1 if SLOW == 1 else 3)
    nobody = 65000 - os.getpid() % 500
    supervisor = driver.supervisor
    driver.stop()
    supervisor.configure(ConfigureRequest("d", exec_user=ExecUser(nobody, nobody)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        supervisor.start(StartRequest("d"))
        driver.exec("bomb", python, "-S", "-c", BOMB, env=environment(marker))
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    until(lambda: len(processes_of(marker)) > limit // 4)
    if "freeze" in end:
        supervisor.freeze(FreezeRequest("d"))
    if "kill" in end:
        driver.kill("bomb")
    else:
        driver.stop()
    assert processes_of(marker) == []
    assert driver.ended("bomb") == ("signaled", 9)


# ---- stop ----


def test_stop_with_too_short_a_deadline_then_again(driver: Driver) -> None:
    supervisor = driver.supervisor
    for round_ in range(5):
        for number in range(10):
            driver.sh(f"p{number}", "sleep 600 & sleep 600 & wait")
        if round_ % 2:
            supervisor.freeze(FreezeRequest("d"))
        done = False
        for _ in range(1000 * SLOW):
            try:
                driver.stop(0.0003)
            except FailureError as error:
                if "is past by" in str(error):
                    continue  # the clock was faster than the call
                if "the deadline passed" not in str(error):
                    raise
                with pytest.raises(InvalidStateError, match="stopping"):
                    driver.sh("q", "exit 0")
                with pytest.raises(InvalidStateError, match="stopping"):
                    supervisor.freeze(FreezeRequest("d"))
                with pytest.raises(InvalidStateError, match="stopping"):
                    supervisor.start(StartRequest("d"))
            else:
                done = True
                break
        assert done
        assert all(event.event.cause == "signaled" for event in events(driver, 10).values())
        supervisor.start(StartRequest("d"))


def test_exec_during_stop(driver: Driver) -> None:
    supervisor = driver.supervisor
    for _ in range(10):
        started: list[str] = []

        def start(started: list[str] = started) -> None:
            for number in range(10000):
                driver.exec(f"p{number}", "/bin/sleep", "600")
                started.append(f"p{number}")

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(start)
            until(lambda: len(started) > 3)  # noqa: B023
            driver.stop()
            with pytest.raises(InvalidStateError, match="stopp"):
                running.result()
        assert set(events(driver, len(started))) == set(started)
        supervisor.start(StartRequest("d"))


def test_kill_during_stop(driver: Driver) -> None:
    """A process dies once, whoever kills it first."""
    for _ in range(5):
        names = [f"p{number}" for number in range(8)]
        for name in names:
            driver.exec(name, "/bin/sleep", "600")
        with ThreadPoolExecutor(8) as pool:
            kills = [pool.submit(driver.kill, name) for name in names]
            driver.stop()
            for kill in kills:
                kill.result()
        assert set(events(driver, 8)) == set(names)
        driver.supervisor.start(StartRequest("d"))


# ---- limits ----


def test_a_throttled_burner_freezes_in_time(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode, freeze_timeout=2.0 * SLOW) as supervisor:
        profile = CgroupProfileConfig(0.01, 0)
        request = ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile), start_profile="throttled")
        try:
            supervisor.configure(request)
        except FailureError as error:
            pytest.skip(str(error))
        driver = Driver(supervisor)
        for number in range(4):
            driver.sh(f"p{number}", "while :; do :; done")
        longest = 0.0
        for _ in range(10):
            time.sleep(0.03)
            began = time.monotonic()
            supervisor.freeze(FreezeRequest("d"))
            longest = max(longest, time.monotonic() - began)
            supervisor.thaw(ThawRequest("d"))
        print(f"longest freeze of a throttled domain: {longest * 1000:.1f} ms")
        began = time.monotonic()
        driver.stop()
        print(f"stop: {(time.monotonic() - began) * 1000:.1f} ms")
        assert len(events(driver, 4)) == 4


# ---- what a domain's processes may do to their helpers ----


@pytest.mark.root
def test_helpers_killed_from_inside(driver: Driver) -> None:
    """Root inside a domain can signal what stands there with it: the next Exec works, and within the domain."""
    driver.exec("p", "/bin/sleep", "600")
    helpers = [
        pid
        for pid in support.children()
        if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("pysup-init")
        and b"keep" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    groups = [sorted(line for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines())]
    for pid in helpers:
        os.kill(pid, 9)
    time.sleep(0.02)
    read, write = os.pipe()
    with open(read) as output, open(write, "wb") as inside:
        driver.exec("q", "/bin/cat", "/proc/self/cgroup", stdout=inside)
        inside.close()
        groups.append(sorted(output.read().splitlines()))
    causes = {}
    while "q" not in causes:
        data = driver.event().event
        causes[data.name] = (data.cause, data.exit_status)
    assert causes["q"] == ("exited", 0)
    choice = {provider.need: provider.choice for provider in driver.supervisor.providers()}
    if any(each.startswith("cgroup") for each in choice.values()):
        moved = {line for line in groups[1] if "/d-d" in line}
        assert moved
        if choice["freeze"] == "cgroup v1":
            assert any("freezer" in line for line in moved)
        if choice["memory_limit"] == "cgroup v1":
            assert any("memory" in line for line in moved)
    driver.stop()


@pytest.mark.root
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_nested_cgroups_made_inside(driver: Driver, marker: str, end: str) -> None:
    """A process that nests cgroups and freezes itself in one is killed all the same."""
    freeze = {provider.need: provider.choice for provider in driver.supervisor.providers()}["freeze"]
    if freeze == "process tree":
        pytest.skip("there are no cgroups in this mode")
    line, name, file, word = (
        ("^0::", "2", "cgroup.freeze", "1")
        if freeze == "cgroup v2"
        else (":freezer:", "freezer", "freezer.state", "FROZEN")
    )
    script = f"""
        own=$(grep '{line}' /proc/self/cgroup | cut -d: -f3)
        mount=$(grep ' - cgroup.*{name}' /proc/self/mountinfo | head -1 | cut -d' ' -f5)
        mkdir -p "$mount$own/a/b/c" || exit 90
        sleep 600 &
        echo $! >"$mount$own/a/b/c/cgroup.procs" || exit 91
        echo {word} >"$mount$own/a/b/c/{file}" || exit 92
        echo ready
        sleep 600
    """
    read, write = os.pipe()
    with open(read) as output, open(write, "wb") as inside:
        driver.sh("p", script, env=environment(marker), stdout=inside)
        inside.close()
        assert output.readline() == "ready\n"
    if end == "stop":
        driver.stop()
    elif freeze == "cgroup v1":
        driver.stop()
        pytest.xfail(
            "there, only Stop looks for cgroups that are frozen by themselves, and Kill waits for its deadline"
        )
    else:
        driver.kill("p")
    assert processes_of(marker) == []
    assert driver.ended("p") == ("signaled", 9)


# --- what fights back ------------------------------------------------------------------------------------

LEADERLESS = """
import ctypes, sys, threading, time
def count():
    n = 0
    while True:
        n += 1
        with open(sys.argv[1], "w") as file: file.write(str(n))
threading.Thread(target=count).start()
time.sleep(0.1)
ctypes.CDLL(None).syscall(60, 0)  # exit(2): this thread alone
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of exit(2) is that of x86_64")
def test_a_process_whose_first_thread_has_ended(mode: str, tmp_path: pathlib.Path) -> None:
    """/proc shows it as a zombie, but it runs."""
    counter = tmp_path / "counter"
    with pysup.LocalSupervisor(cgroups=mode, freeze_timeout=0.5) as supervisor:
        driver = Driver(supervisor)
        driver.exec("p", sys.executable, "-S", "-c", LEADERLESS, str(counter))
        until(lambda: counter.exists() and counter.read_text() > "")
        time.sleep(0.3)
        with contextlib.suppress(FailureError):  # "did not freeze", rather than to say so while it runs
            supervisor.freeze(FreezeRequest("d"))
            before = counter.read_text()
            time.sleep(0.1)
            assert counter.read_text() == before
            supervisor.thaw(ThawRequest("d"))
        driver.kill("p")
        assert driver.ended("p") == ("signaled", 9)


@pytest.mark.root
def test_a_process_that_has_left_its_cgroup(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        if {p.need: p.choice for p in supervisor.providers()}["tree"] != "cgroup v2":
            pytest.skip("there are no cgroups for processes in this mode")
        script = """
            mount=$(grep ' - cgroup2 ' /proc/self/mountinfo | head -1 | cut -d' ' -f5)
            echo $$ > "$mount/cgroup.procs" && grep -q '^0::/$' /proc/self/cgroup || exit 90
            echo out; sleep 600
        """
        for name in ("killed", "stopped"):
            read_end, write_end = os.pipe()
            with open(read_end, "rb") as said, open(write_end, "wb") as out:
                driver.sh(name, script, stdout=out)
                out.close()
                assert said.readline() == b"out\n"
        driver.kill("killed")
        assert driver.ended("killed") == ("signaled", 9)
        driver.stop()
        assert driver.ended("stopped") == ("signaled", 9)


def test_exit_from_several_threads_while_others_call(mode: str) -> None:
    for _ in range(5):
        supervisor = pysup.LocalSupervisor(cgroups=mode)
        driver = Driver(supervisor)
        for number in range(5):
            driver.exec(f"p{number}", "/bin/sleep", "600")
        ended = threading.Event()

        def ask(supervisor: pysup.LocalSupervisor = supervisor, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                try:
                    supervisor.limits("d")
                    supervisor.providers()
                    supervisor.fileno()
                except pysup.SupervisorError:
                    return

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads += [threading.Thread(target=supervisor.exit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads[3:]:
            thread.join(PATIENCE)
        ended.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_exec_in_a_domain_that_has_used_up_its_cpu_time(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        profile = CgroupProfileConfig(0.01, 0)
        try:
            supervisor.configure(
                ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile), start_profile="throttled")
            )
        except FailureError as error:
            pytest.skip(f"no CPU limit: {error.message}"[:60])
        driver = Driver(supervisor)
        for number in range(4):
            driver.sh(f"burner{number}", "while :; do :; done")
        time.sleep(0.3)
        for number in range(5):
            driver.exec(f"p{number}", "/bin/sleep", "600")  # a burner a second would be the helper's share
        assert supervisor.limits("d") == (0.01, 0)


def test_a_keeper_that_was_killed_is_replaced(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:

        def keepers() -> set[int]:
            found = set()
            for pid in children():
                with contextlib.suppress(OSError):
                    if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"pysup-init\0keep\0"):
                        found.add(pid)
            return found

        before = keepers()
        if not before:
            pytest.skip("there are no cgroups in this mode")
        os.kill(next(iter(before)), 9)
        until(lambda: keepers() - before)
        supervisor.ping()
