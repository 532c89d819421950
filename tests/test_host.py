"""The host program beside a supervisor: its children, signals, forks and descriptors; and its own death."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import io
import json
import mmap
import multiprocessing
import os
import pathlib
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import support
from support import MODES, PATIENCE, cgroup_directories, mode_problem, soon, until

import pysup
from pysup.errors import FailureError, InvalidStateError, SupervisorError
from pysup.model import EventsRequest, ExecRequest, FreezeRequest, KillRequest, StartRequest, StopRequest, ThawRequest

pytestmark = pytest.mark.kernel

SLOW = 10 if support.EMULATED else 1
# From Linux 6.15 the kernel tells the status of a process that someone else has waited for.
EXACT = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 15)


class Driver(support.Driver):
    """One that is let go of with its test."""

    def __init__(self, supervisor: Any, domain: str = "d") -> None:
        super().__init__(supervisor, domain)
        self.made.remove(self)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    if problem := mode_problem(request.param):
        pytest.skip(problem)
    return request.param


@pytest.fixture
def driver(mode: str) -> Iterator[Driver]:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        yield Driver(supervisor)


def same_cause(found: tuple[str | None, int | None], wanted: tuple[str, int]) -> None:
    """Where the host may have waited first."""
    if EXACT or found[0] != "unknown":
        assert found == wanted


# ---- the host's own children ----


def test_subprocesses_beside_a_supervisor(driver: Driver) -> None:
    wrong: list[Any] = []
    over = threading.Event()

    def host() -> None:
        while not over.is_set():
            for status in (0, 7, 200):
                found = subprocess.run(["/bin/sh", "-c", f"exit {status}"], check=False).returncode
                if found != status:
                    wrong.append((found, status))

    threads = [threading.Thread(target=host) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60 // SLOW):
        driver.sh(f"p{number}", f"exit {number}")
        assert driver.ended(f"p{number}") == ("exited", number)
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_asyncio_children_beside_a_supervisor(mode: str) -> None:
    async def main() -> None:
        async with pysup.AsyncLocalSupervisor(cgroups=mode) as supervisor:
            await supervisor.start(StartRequest("d"))
            stream = await supervisor.events(EventsRequest("d"))
            for number in range(20):
                request = ExecRequest(name=f"p{number}", domain="d", path="/bin/sh", args=["-c", f"exit {number}"])
                process, _ = await asyncio.gather(
                    asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {number + 1}"), supervisor.exec(request)
                )
                assert await process.wait() == number + 1
                data = (await stream.read(PATIENCE)).event
                assert (data.name, data.cause, data.exit_status) == (f"p{number}", "exited", number)

    asyncio.run(main())


def test_a_host_that_waits_for_any_child(driver: Driver) -> None:
    """Nothing hangs and no event is missed; what the host stole is exact where the kernel tells."""
    over = threading.Event()
    stolen: list[int] = []

    def wait() -> None:
        while not over.is_set():
            try:
                pid, _ = os.waitpid(-1, 0 if stolen else os.WNOHANG)
                if pid:
                    stolen.append(pid)
            except ChildProcessError:
                time.sleep(0.001)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        count = 100 // SLOW
        for number in range(count):
            driver.sh(f"p{number}", f"exit {number}" if number % 2 else "kill -9 $$")
        found = {}
        while len(found) < count:
            data = driver.event().event
            assert data.name not in found
            found[data.name] = (data.cause, data.exit_status if data.signo is None else data.signo)
        for number in range(count):
            same_cause(found[f"p{number}"], ("exited", number) if number % 2 else ("signaled", 9))
        driver.quiet()
        driver.sh("long", "sleep 600 & sleep 600")
        driver.kill("long")
        same_cause(driver.ended("long"), ("signaled", 9))
        with pytest.raises(FailureError):
            driver.exec("bad", "/nowhere")
        driver.stop()
    finally:
        over.set()
        driver.supervisor.exit()  # the thread may be waiting for the keeper
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_host_that_ignores_sigchld(mode: str) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pysup.LocalSupervisor(cgroups=mode) as supervisor:
            driver = Driver(supervisor)
            for number in range(20):
                driver.sh(f"p{number}", f"exit {number}")
                same_cause(driver.ended(f"p{number}"), ("exited", number))
            with pytest.raises(FailureError) as caught:
                driver.exec("bad", "/nowhere")
            assert caught.value.errno == 2
            driver.exec("long", "/bin/sleep", "600")
            driver.kill("long")
            same_cause(driver.ended("long"), ("signaled", 9))
            driver.exec("left", "/bin/sleep", "600")
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_host_keeps_its_signals_and_children(mode: str) -> None:
    called = []
    before = signal.signal(signal.SIGCHLD, lambda *_: called.append(1))
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGWINCH})
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    dispositions = [
        line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("Sig")
    ][1:]
    child = subprocess.Popen(["/bin/sleep", "600"])
    try:
        with pysup.LocalSupervisor(cgroups=mode) as supervisor:
            driver = Driver(supervisor)
            driver.sh("p", "exit 3")
            assert driver.ended("p") == ("exited", 3)
            driver.exec("q", "/bin/sleep", "600")
            supervisor.freeze(FreezeRequest("d"))
            supervisor.thaw(ThawRequest("d"))
        assert child.poll() is None
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask
        assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
        now = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("Sig")][
            1:
        ]
        assert [line for line in now if "Pnd" not in line] == [line for line in dispositions if "Pnd" not in line]
        child.kill()
        assert child.wait(PATIENCE) == -9
        until(lambda: called)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
        signal.signal(signal.SIGCHLD, before)
        if child.returncode is None:
            child.kill()
            child.wait()


# ---- forks of the host ----


def in_fork(call: Callable[[], Any], end: Callable[[int], Any] = os._exit) -> Any:
    """What a call gives in a fork of this process."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.write(write, json.dumps(call()).encode())
            status = 0
        except BaseException as error:
            os.write(write, json.dumps(repr(error)).encode())
        finally:
            end(status)
    os.close(write)
    with open(read) as output:
        answer = json.loads(output.read() or "null")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, answer
    return answer


def test_a_fork_has_a_dead_handle(driver: Driver) -> None:
    supervisor = driver.supervisor
    driver.exec("p", "/bin/sleep", "600")

    def child() -> list[str]:
        said = []
        for call in (
            supervisor.ping,
            supervisor.providers,
            lambda: supervisor.start(StartRequest("e")),
            lambda: driver.exec("q", "/bin/true"),
            lambda: driver.kill("p"),
            lambda: supervisor.freeze(FreezeRequest("d")),
            lambda: driver.stop(),
            lambda: supervisor.events(EventsRequest("d")),
            lambda: driver.stream.read(0),
        ):
            try:
                call()
                said.append(f"{call} did not fail")
            except FailureError as error:
                said.append(str(error.errno))
        supervisor.exit()
        driver.stream.close()
        return said

    for _ in range(3):
        answers = in_fork(child)
        assert not any("did not fail" in answer for answer in answers), answers
    driver.quiet()
    driver.kill("p")
    assert driver.ended("p") == ("signaled", 9)
    driver.sh("q", "exit 3")
    assert driver.ended("q") == ("exited", 3)


def test_the_end_of_a_fork_hurts_nobody(mode: str) -> None:
    """Also where it runs the interpreter's end, and where it drops all handles."""
    code = f"""
        import gc, os, sys
        import pysup
        from support import Driver
        supervisor = pysup.LocalSupervisor(cgroups={mode!r})
        driver = Driver(supervisor)
        driver.exec("p", "/bin/sleep", "600")
        for how in range(3):
            pid = os.fork()
            if not pid:
                if how == 1:
                    Driver.made.clear()
                    del driver, supervisor
                    gc.collect()
                sys.exit(0) if how < 2 else os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        driver.quiet()
        driver.sh("q", "exit 3")
        assert driver.ended("q") == ("exited", 3)
        driver.kill("p")
        assert driver.ended("p") == ("signaled", 9)
        supervisor.exit()
        print("fine")
    """
    done = run_host(code)
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def _answer(number: int) -> int:
    return number * 2


def test_multiprocessing_by_fork(driver: Driver) -> None:
    driver.exec("p", "/bin/sleep", "600")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_answer, range(10)) == [number * 2 for number in range(10)]
    driver.kill("p")
    assert driver.ended("p") == ("signaled", 9)


def test_a_supervisor_made_in_a_fork(driver: Driver, mode: str) -> None:
    driver.exec("p", "/bin/sleep", "600")

    def child() -> list[Any]:
        with pysup.LocalSupervisor(cgroups=mode) as supervisor:
            own = Driver(supervisor)
            own.sh("p", "exit 5")
            return list(own.ended("p"))

    assert in_fork(child) == ["exited", 5]
    driver.quiet()


# ---- the end of the host ----


def run_host(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program of its own, with the tests' modules."""
    return subprocess.run(
        host_command(code), capture_output=True, text=True, timeout=PATIENCE * 2, check=False, **options
    )


def host_command(code: str) -> list[str]:
    preface = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
    return [sys.executable, "-P" if sys.version_info >= (3, 11) else "-E", "-c", preface + textwrap.dedent(code)]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


HOST = """
    import os, sys, time
    import pysup
    from pysup.model import *
    from support import Driver
    supervisor = pysup.LocalSupervisor(cgroups={mode!r})
    driver, frozen, idle = Driver(supervisor), Driver(supervisor, "frozen"), Driver(supervisor, "idle")
    for one in (driver, frozen):
        one.sh("p", "trap '' TERM HUP; sleep 600 & (sleep 600 &) ; while :; do sleep 600; done")
        one.exec("q", "/bin/sleep", "600")
    time.sleep(0.2)
    supervisor.freeze(FreezeRequest("frozen"))
    fork = os.fork() if {fork} else 0
    if {fork} and not fork:
        time.sleep(600)
    pids = [process.pid() for name in ("d", "frozen") for process in supervisor._domains[name].processes.values()]
    print(os.getpid(), fork, *pids, flush=True)
    {end}
"""


def descendants_of(pids: list[int]) -> set[int]:
    """By session: what they started and did not move."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if int(pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[3]) in pids:
                    found.add(int(entry))
    return found


@pytest.mark.parametrize(
    ("end", "fork"),
    [("kill -9", False), ("kill -9", True), ("end", False), ("end", True), ("exception", False), ("os._exit", False)],
)
def test_domains_die_with_their_host(mode: str, end: str, fork: bool) -> None:
    ends = {
        "kill -9": "time.sleep(600)",
        "end": "",
        "exception": "raise RuntimeError('on purpose')",
        "os._exit": "os._exit(3)",
    }
    with subprocess.Popen(
        host_command(HOST.format(mode=mode, fork=fork, end=ends[end])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as host:
        forked = 0
        try:
            assert host.stdout
            assert host.stderr
            words = host.stdout.readline().split()
            assert words, host.stderr.read()
            pid, forked, *pids = map(int, words)
            assert pid == host.pid
            everyone = descendants_of(pids) | set(pids)
            assert len(pids) == 4
            if end == "kill -9":
                assert all(map(alive, pids))
                assert len(everyone) >= 8
                host.kill()
            host.wait(PATIENCE)
            until(lambda: not any(map(alive, everyone)), PATIENCE / 2)
            until(lambda: not [path for path in cgroup_directories() if f"/pysup-{pid}-" in path], PATIENCE / 2)
            assert host.returncode == {"kill -9": -9, "end": 0, "exception": 1, "os._exit": 3}[end]
        finally:
            if forked:
                assert alive(forked)  # it is the host's, not ours
                os.kill(forked, signal.SIGKILL)
            host.kill()


def test_the_host_dies_while_its_thread_works(mode: str) -> None:
    """In the middle of starts and execs: what is half made goes too."""
    code = f"""
        import itertools, os, threading
        import pysup
        from pysup.model import *
        from support import Driver, soon
        supervisor = pysup.LocalSupervisor(cgroups={mode!r})
        driver = Driver(supervisor)
        def work(which):
            for number in itertools.count():
                driver.exec(f"p{{which}}.{{number}}", "/bin/sleep", "600.125")
                if number % 3 == 2:
                    Driver(supervisor, f"d{{which}}.{{number}}")
        for which in range(3):
            threading.Thread(target=work, args=(which,), daemon=True).start()
        print("ready", flush=True)
        threading.Event().wait()
    """

    def sleepers() -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and b"600.125" in pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry))
        return found

    for delay in (0.02, 0.1, 0.25):
        with subprocess.Popen(host_command(code), stdout=subprocess.PIPE, text=True) as host:
            assert host.stdout
            assert host.stdout.readline() == "ready\n"
            time.sleep(delay * SLOW)
            host.kill()
            host.wait()
            until(lambda: not sleepers())
            until(lambda: not [path for path in cgroup_directories() if f"/pysup-{host.pid}-" in path])


# ---- Ctrl-C ----


@contextlib.contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """A SIGINT to this process, as a terminal sends it, in the middle of what is done."""
    main = threading.main_thread().ident
    assert main
    timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer.start()
    try:
        yield
        timer.join()
        time.sleep(0.001)  # here at the latest it is delivered
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_reading(driver: Driver) -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupt_after(0.1):
        driver.stream.read(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    driver.sh("p", "exit 3")
    assert driver.ended("p") == ("exited", 3)


def unkillable(driver: Driver, count: int) -> None:
    for number in range(count):
        driver.sh(f"p{number}", "sleep 600 & sleep 600")


def test_ctrl_c_in_any_call(mode: str) -> None:
    """Whenever it comes, and in whichever call: the domain can be used or stopped afterwards, and nothing is left."""
    with pysup.LocalSupervisor(cgroups=mode, freeze_timeout=PATIENCE) as supervisor:
        interrupted = 0
        for number in range(60 // (1 if SLOW == 1 else 3)):
            name = f"d{number}"
            stream = None
            delay = (0.0003, 0.001, 0.002, 0.004, 0.008, 0.016)[number % 6] * SLOW
            try:
                with interrupt_after(delay):
                    supervisor.start(StartRequest(name))
                    stream = supervisor.events(EventsRequest(name))
                    for process in range(3):
                        request = ExecRequest(name=f"p{process}", domain=name, path="/bin/sleep", args=["600"])
                        supervisor.exec(request)
                    supervisor.freeze(FreezeRequest(name))
                    supervisor.thaw(ThawRequest(name))
                    supervisor.kill(KillRequest(name="p0", domain=name, deadline=soon()))
                    supervisor.stop(StopRequest(name, soon()))
            except KeyboardInterrupt:
                interrupted += 1
            # Whatever has happened, it can be brought to a stop, and begun again.
            with contextlib.suppress(SupervisorError):
                supervisor.stop(StopRequest(name, soon()))
            supervisor.start(StartRequest(name))
            stream = supervisor.events(EventsRequest(name))
            while True:
                try:
                    stream.read(0)
                except TimeoutError:
                    break
            supervisor.exec(ExecRequest(name="last", domain=name, path="/bin/true"))
            assert stream.read(PATIENCE).event.name == "last"
            supervisor.freeze(FreezeRequest(name))
            supervisor.stop(StopRequest(name, soon()))
        assert interrupted


def test_ctrl_c_does_not_reach_the_processes(driver: Driver) -> None:
    """They stand in sessions of their own: a terminal's signals are for the host."""
    driver.exec("p", "/bin/sleep", "600")
    (pid,) = (process.pid() for process in driver.supervisor._domains["d"].processes.values())
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getpgid(pid) == pid


# ---- what a process is given ----


@contextlib.contextmanager
def pipe() -> Iterator[tuple[Any, Any]]:
    read, write = os.pipe()
    with open(read) as output, open(write, "wb") as inside:
        yield output, inside


def said_by(driver: Driver, *argv: str, **fields: Any) -> str:
    with pipe() as (output, inside):
        driver.exec("said", *argv, stdout=inside, **fields)
        inside.close()
        text: str = output.read()
    assert driver.ended("said") == ("exited", 0)
    return text


@pytest.mark.parametrize("inheritable", [0, 300])
def test_descriptors(driver: Driver, inheritable: int, tmp_path: pathlib.Path) -> None:
    """0, 1, 2 and the extra ones, whatever the host has open and inheritable."""
    extra = tmp_path / "extra"
    extra.write_text("x")
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(inheritable)]
    try:
        for fd in opened:
            os.set_inheritable(fd, True)
        with open(extra) as one, open(tmp_path / "two", "w") as two:
            for files in ([], [one], [one, two, one]):
                lines = said_by(driver, "/bin/ls", "-l", "/proc/self/fd", extra_files=files).splitlines()[1:]
                found = {int(line.split()[-3]): line.split()[-1] for line in lines}
                listing = found.popitem()  # ls has the directory open
                assert listing[0] == 3 + len(files)
                assert sorted(found) == list(range(3 + len(files)))
                assert found[0] == found[2] == "/dev/null"
                assert found[1].startswith("pipe:")
                assert [found[3 + number] for number in range(len(files))] == [
                    file.name and str(file.name) for file in files
                ]
    finally:
        for fd in opened:
            os.close(fd)


def test_descriptors_that_cross_each_other(driver: Driver) -> None:
    """The host's 0, 1 and 2 in other places, one thing in several."""
    saved = [os.dup(fd) for fd in range(3)]
    try:
        with pipe() as (output, inside), pipe() as (errors, wrong):
            for fd, source in ((0, inside.fileno()), (1, wrong.fileno()), (2, inside.fileno())):
                os.dup2(source, fd)
            try:
                driver.sh(
                    "p",
                    "echo out; echo err >&2; echo three >&3; echo four >&4",
                    stdout=FD(0),
                    stderr=FD(1),
                    extra_files=[FD(1), FD(0)],
                )
                ended = driver.ended("p")
            finally:
                for fd in range(3):
                    os.dup2(saved[fd], fd)
            inside.close()
            wrong.close()
            assert ended == ("exited", 0)
            assert output.read() == "out\nfour\n"
            assert errors.read() == "err\nthree\n"
    finally:
        for fd in saved:
            os.close(fd)


class FD:
    """A bare descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd


@pytest.mark.parametrize(
    "env",
    [{}, {"A": "1"}, {"A": "", "PATH": "x", "ÄÖ": "ü=€", "L": "a\nb", "\udcff": "\udcfe"}],
    ids=["empty", "one", "odd"],
)
def test_the_environment_is_exactly_as_given(driver: Driver, env: dict[str, str]) -> None:
    with pipe() as (output, inside):
        driver.exec("p", "/bin/cat", "/proc/self/environ", env=env, stdout=inside)
        inside.close()
        raw_bytes = output.buffer.read()
    assert driver.ended("p") == ("exited", 0)
    assert raw_bytes.split(b"\0")[:-1] == [os.fsencode(key) + b"=" + os.fsencode(value) for key, value in env.items()]


def test_the_environment_of_the_host(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSUP_TEST_VALUE", "just now")
    raw = said_by(driver, "/bin/cat", "/proc/self/environ")
    assert "PYSUP_TEST_VALUE=just now" in raw.split("\0")


def test_signals_are_default_and_unblocked_inside(driver: Driver) -> None:
    """Python ignores SIGPIPE, and this host more."""
    numbers = [signal.SIGUSR1, signal.SIGTTOU, signal.SIGHUP, signal.SIGRTMIN + 3]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGRTMAX})
    try:
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
        status = said_by(driver, "/bin/cat", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    found = dict(line.split(":", 1) for line in status.splitlines())
    for what in ("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"):
        assert int(found[what], 16) == 0, (what, found[what])


def test_argv_cwd_and_session(driver: Driver, tmp_path: pathlib.Path) -> None:
    awkward = ["", " ", "a b", "'\"$x\\", "ä€\udcff", "--", "x" * 10000]
    with pipe() as (output, inside):
        driver.exec("p", "/bin/cat", "/proc/self/cmdline", "/dev/null", *["/dev/null"] * 3, stdout=inside)
        inside.close()
        assert output.buffer.read().split(b"\0")[:2] == [b"/bin/cat", b"/proc/self/cmdline"]
    assert driver.ended("p") == ("exited", 0)
    with pipe() as (output, inside):
        script = "tr '\\0' '\\n' </proc/$$/cmdline | tail -n 7; pwd"
        driver.exec("p", "/bin/sh", "-c", script, "name", *awkward, stdout=inside, cwd=str(tmp_path))
        inside.close()
        lines = output.buffer.read().split(b"\n")
    assert driver.ended("p") == ("exited", 0)
    assert lines == [*map(os.fsencode, awkward), os.fsencode(tmp_path), b""]
    for cwd in (None, ""):
        assert said_by(driver, "/bin/sh", "-c", "pwd", cwd=cwd) == "/\n"
    assert said_by(driver, "/bin/sh", "-c", "cat /proc/$$/stat").split()[5] != str(os.getsid(0))


# ---- a large host ----


def test_a_large_host_execs_as_fast_as_a_small_one() -> None:
    """Nothing is copied, so its memory does not matter. The ratio is told; the bound is that of a fork."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    available = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) >> 10
    size = 1 << 30 if available > 2500 else 128 << 20

    def median(driver: Driver) -> float:
        times = []
        for number in range(30 // (1 if SLOW == 1 else 3)):
            began = time.perf_counter()
            driver.exec(f"p{number}", "/bin/true")
            times.append(time.perf_counter() - began)
            driver.ended(f"p{number}")
        return sorted(times)[len(times) // 2]

    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        median(driver)
        small = median(driver)
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 1, size)
            large = median(driver)
            gc.collect()
    print(f"exec: {small * 1e6:.0f} us, with {size >> 20} MiB touched {large * 1e6:.0f} us, ratio {large / small:.2f}")
    assert large < small * 10 + 0.01


# ---- outputs ----


def test_a_sink_that_is_slow_or_broken_does_not_hang_the_host(driver: Driver) -> None:
    class Broken(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise OSError("disk full")

    driver.sh("p", "yes | head -c 1000000; exit 3", stdout=Broken())
    assert driver.ended("p") == ("exited", 3)
    driver.stop()


def test_calls_after_exit(mode: str) -> None:
    supervisor = pysup.LocalSupervisor(cgroups=mode)
    driver = Driver(supervisor)
    driver.exec("p", "/bin/sleep", "600")
    supervisor.exit()
    supervisor.exit()
    for call in (
        supervisor.ping,
        supervisor.providers,
        supervisor.fileno,
        lambda: supervisor.start(StartRequest("d")),
        lambda: driver.exec("q", "/bin/true"),
        lambda: driver.kill("p"),
        lambda: driver.stop(),
        lambda: supervisor.events(EventsRequest("d")),
    ):
        with pytest.raises(InvalidStateError, match="has ended"):
            call()
    assert driver.ended("p") == ("signaled", 9)
    with pytest.raises(EOFError):
        driver.stream.read(0)
