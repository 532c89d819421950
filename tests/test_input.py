"""Bad input and exhausted resources: a clear, typed error every time, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import resource
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import support
from support import KINDS, MODES, PATIENCE, mode_problem, possessions, soon

import pysup
from pysup.errors import FailureError, InvalidStateError, NoSuchEntityError, SerdeError
from pysup.model import (
    BindMount,
    Capabilities,
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    EventsRequest,
    ExecRequest,
    ExecUser,
    FreezeRequest,
    Hook,
    KillRequest,
    Logging,
    ManagedLogging,
    StartRequest,
    StopRequest,
    TerminateRequest,
    ThawRequest,
)

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Descriptors, threads, children and cgroups are afterwards what they were; the dying get a moment."""
    gc.collect()
    before = possessions()
    yield
    assert_back(before)


def assert_back(before: dict[str, Any]) -> None:
    gc.collect()  # a caught exception's traceback holds streams
    end = time.monotonic() + PATIENCE / 6
    while (after := possessions()) != before and time.monotonic() < end:
        time.sleep(0.01)
    assert after == before


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


@pytest.fixture(params=list(KINDS))
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with KINDS[request.param]() as supervisor:
        yield Driver(supervisor)


class Stream:
    """Whatever fileno() a caller may come up with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def fileno(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


LONG = "x" * 251
BAD_NAMES = [
    ("", FailureError, "is empty"),
    (LONG, FailureError, "251 bytes"),
    ("é" * 126, FailureError, "252 bytes"),
    ("a/b", FailureError, "'a/b'"),
    ("/", FailureError, "'/'"),
    (".", FailureError, "'.'"),
    ("..", FailureError, "'..'"),
    ("../../etc", FailureError, "'../../etc'"),
    ("a\0b", FailureError, r"'a\x00b'"),
    ("a\nb", FailureError, r"'a\nb'"),
    ("a\x7f", FailureError, r"'a\x7f'"),
    ("\udcff", SerdeError, r"\udcff"),
    (None, SerdeError, "None"),
    (7, SerdeError, "7"),
    (b"d", SerdeError, "b'd'"),
    (["d"], SerdeError, "['d']"),
]


@pytest.mark.parametrize(("name", "kind", "text"), BAD_NAMES, ids=lambda value: repr(value)[:20])
def test_names(driver: Driver, name: Any, kind: type[Exception], text: str) -> None:
    supervisor = driver.supervisor
    with nothing_left():
        for call in (
            lambda: supervisor.start(StartRequest(name)),
            lambda: supervisor.configure(ConfigureRequest(name)),
            lambda: driver.exec(name, "/bin/true"),
        ):
            with pytest.raises(kind) as caught:
                call()
            assert text in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 250, "é" * 125, "a b", "-rf", "d\u202e", "~", "%s%n", "'\"", "cgroup.procs"])
def test_odd_names_that_are_fine(name: str) -> None:
    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor, name)
        driver.sh(name, "exit 3")
        assert driver.ended(name) == ("exited", 3)
        driver.stop()


@pytest.mark.parametrize("name", [None, 7, b"d", ["d"], {}, "unknown", "", "a\0", "x" * 5000, "\udcff"])
def test_what_is_not_known(driver: Driver, name: Any) -> None:
    supervisor, when = driver.supervisor, soon()
    kind = NoSuchEntityError if isinstance(name, str) else SerdeError
    driver.exec("p", "/bin/sleep", "600")
    with nothing_left():
        for call in (
            lambda: supervisor.freeze(FreezeRequest(name)),
            lambda: supervisor.thaw(ThawRequest(name)),
            lambda: supervisor.stop(StopRequest(name, when)),
            lambda: supervisor.events(EventsRequest(name)),
            lambda: supervisor.kill(KillRequest(name="p", domain=name, deadline=when)),
            lambda: supervisor.kill(KillRequest(name=name, domain="d", deadline=when)),
            lambda: supervisor.terminate(TerminateRequest(name="p", domain=name)),
            lambda: supervisor.terminate(TerminateRequest(name=name, domain="d")),
            lambda: supervisor.exec(ExecRequest(name="q", domain=name, path="/bin/true")),
            lambda: supervisor.limits(name),
        ):
            with pytest.raises(kind):
                call()
    driver.quiet()


def exec_cases(base: Path) -> list[tuple[dict[str, Any], type[Exception], list[str], int | None]]:
    """Fields of an ExecRequest, what is raised, what its message holds, and its errno."""
    plain = base / "plain"
    plain.write_text("no program")
    no_line = base / "no-line"
    no_line.write_text("exit 3\n")
    no_line.chmod(0o755)
    no_interpreter = base / "no-interpreter"
    no_interpreter.write_text("#!/nowhere/sh\n")
    no_interpreter.chmod(0o755)
    loop = base / "loop"
    loop.symlink_to(loop)
    empty = base / "empty"
    empty.touch(0o755)
    closed = io.FileIO(os.memfd_create("x"))
    closed.close()
    gone = os.memfd_create("x")
    os.close(gone)
    true = "/bin/true"
    return [
        ({"path": ""}, FailureError, ["path", "''"], None),
        ({"path": "true"}, FailureError, ["path", "'true'"], None),
        ({"path": "./true"}, FailureError, ["path", "'./true'"], None),
        ({"path": "/bin/tr\0ue"}, FailureError, ["path", "NUL"], None),
        ({"path": "/nowhere/x"}, FailureError, ['"/nowhere/x"', "No such file"], 2),
        ({"path": str(plain)}, FailureError, [str(plain), "Permission denied"], 13),
        ({"path": str(base)}, FailureError, [str(base), "directory"], 13),
        ({"path": str(no_line)}, FailureError, [str(no_line), "#!"], 8),
        ({"path": str(empty)}, FailureError, [str(empty), "#!"], 8),
        ({"path": str(no_interpreter)}, FailureError, [str(no_interpreter), "interpreter"], 2),
        ({"path": f"{plain}/x"}, FailureError, [f"{plain}/x", "Not a directory"], 20),
        ({"path": str(loop)}, FailureError, [str(loop), "symbolic links"], 40),
        ({"path": "/" + "x" * 300}, FailureError, ["File name too long"], 36),
        ({"path": "/x" * 4000}, FailureError, ["File name too long"], 36),
        ({"path": None}, SerdeError, ["path", "None"], None),
        ({"path": b"/bin/true"}, SerdeError, ["path"], None),
        ({"path": Path(true)}, SerdeError, ["path"], None),
        ({"args": ["a\0b"]}, FailureError, ["args[0]", "NUL"], None),
        ({"args": ["a", 5]}, SerdeError, ["args[1]", "5"], None),
        ({"args": "text"}, SerdeError, ["args", "'text'"], None),
        ({"args": ["x" * 200_000]}, FailureError, [true, "too long"], 7),
        ({"args": ["x" * 1000] * 4000}, FailureError, [true], 7),
        ({"args": ["x" * 100_000] * 200}, FailureError, [true], 7),
        ({"env": {"A": "x" * 200_000}}, FailureError, [true, "too long"], 7),
        ({"env": {"A=B": "x"}}, FailureError, ["env", "'A=B'"], None),
        ({"env": {"": "x"}}, FailureError, ["env", "''"], None),
        ({"env": {"A\0": "x"}}, FailureError, ["env", "NUL"], None),
        ({"env": {"A": "x\0"}}, FailureError, ["env['A']", "NUL"], None),
        ({"env": {"A": 5}}, SerdeError, ["env", "5"], None),
        ({"env": {5: "A"}}, SerdeError, ["env", "5"], None),
        ({"env": ["A=B"]}, SerdeError, ["env"], None),
        ({"cwd": "/nowhere"}, FailureError, ['directory "/nowhere"', "No such file"], 2),
        ({"cwd": str(plain)}, FailureError, [str(plain), "Not a directory"], 20),
        ({"cwd": "relative"}, FailureError, ["cwd", "'relative'"], None),
        ({"cwd": "/\0"}, FailureError, ["cwd", "NUL"], None),
        ({"cwd": 5}, SerdeError, ["cwd", "5"], None),
        ({"cwd": "/nowhere", "path": "/nowhere/x"}, FailureError, ["directory"], 2),
        ({"stdin": "text"}, FailureError, ["stdin", "'text'"], None),
        ({"stdin": io.BytesIO()}, FailureError, ["stdin", "descriptor"], None),
        ({"stdin": closed}, FailureError, ["stdin", "closed"], None),
        ({"stdout": 1}, FailureError, ["stdout", "1"], None),
        ({"stdout": closed}, FailureError, ["stdout", "closed"], None),
        ({"stderr": Stream(-1)}, FailureError, ["stderr", "-1"], None),
        ({"stdout": Stream(2**31)}, FailureError, ["stdout", str(2**31)], None),
        ({"stdout": Stream(2**70)}, FailureError, ["stdout", str(2**70)], None),
        ({"stdout": Stream("1")}, FailureError, ["stdout", "'1'"], None),
        ({"stdout": Stream(RuntimeError("no luck"))}, FailureError, ["stdout", "no luck"], None),
        ({"stdout": Stream(gone)}, FailureError, [str(gone), "not open"], 9),
        ({"extra_files": [Stream(0), Stream(gone)]}, FailureError, [f"{gone} for 4", "not open"], 9),
        ({"extra_files": [0]}, FailureError, ["extra_files[0]", "0"], None),
        ({"extra_files": [closed]}, FailureError, ["extra_files[0]", "closed"], None),
        ({"extra_files": [Stream(0)] * 250}, FailureError, ["extra_files", "250", "249"], None),
        ({"log_config": Logging(ManagedLogging("function", ["json"]))}, FailureError, ["not supported yet"], None),
        ({"log_config": Logging(ManagedLogging("nonsense"))}, FailureError, ["log_config.managed"], None),
        ({"log_config": None}, SerdeError, ["log_config"], None),
    ]


def test_exec(driver: Driver, tmp_path: Path) -> None:
    """One after the other in one domain, so that a failure would spoil what follows."""
    driver.sh("first", "exit 0")
    driver.ended("first")
    for number, (fields, kind, texts, code) in enumerate(exec_cases(tmp_path)):
        with nothing_left() if number % 3 == 0 or code else contextlib.nullcontext():
            with pytest.raises(kind) as caught:
                driver.supervisor.exec(ExecRequest(**{"name": "p", "domain": "d", "path": "/bin/true"} | fields))
            error: Any = caught.value
            assert type(error) is kind, fields
            assert all(text in str(error) for text in texts), (fields, str(error)[:500])
            assert len(str(error)) < 9000
            assert error.errno == code, (fields, error)
    driver.quiet()
    driver.sh("p", "exit 4")
    assert driver.ended("p") == ("exited", 4)


@pytest.mark.parametrize("mode", MODES, indirect=True)
def test_exec_failures_do_not_add_up(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        driver.sh("warm", "exit 0")
        driver.ended("warm")
        with nothing_left():
            for _ in range(100):
                with pytest.raises(FailureError):
                    driver.exec("p", "/nowhere/x")
        driver.quiet()
        for root in possessions()["cgroups"]:  # none where there are no rights
            assert sum(1 for _ in os.walk(root)) < 10


def test_as_many_files_as_possible(driver: Driver) -> None:
    read, write = os.pipe()
    with open(read, "rb") as output, open(write, "wb") as inside:
        driver.sh("p", "ls /proc/self/fd | wc -l >/proc/self/fd/251", extra_files=[inside] * 249)
        inside.close()
        assert int(output.read()) >= 252
    assert driver.ended("p") == ("exited", 0)


def test_names_are_reused_only_after_the_end(driver: Driver) -> None:
    driver.exec("p", "/bin/sleep", "600")
    with nothing_left(), pytest.raises(InvalidStateError, match='process "p" in domain "d"'):
        driver.exec("p", "/bin/true")
    driver.kill("p")
    assert driver.ended("p") == ("signaled", 9)
    for status in range(20):
        driver.sh("p", f"exit {status}")
        assert driver.ended("p") == ("exited", status)
    driver.quiet()


LIMITS_BAD = [
    (CgroupProfileConfig(-1.0, 0), FailureError, "-1"),
    (CgroupProfileConfig(-0.5, 0), FailureError, "-0.5"),
    (CgroupProfileConfig(float("nan"), 0), SerdeError, "nan"),
    (CgroupProfileConfig(float("inf"), 0), SerdeError, "inf"),
    (CgroupProfileConfig(0.0001, 0), FailureError, "0.0001"),
    (CgroupProfileConfig(1e9, 0), FailureError, "1e+09"),
    (CgroupProfileConfig(0, 1), FailureError, "memory_limit_bytes"),
    (CgroupProfileConfig(0, 4095), FailureError, "memory_limit_bytes"),
    (CgroupProfileConfig(0, -1), SerdeError, "-1"),
    (CgroupProfileConfig(0, 2**64), SerdeError, str(2**64)),
    (CgroupProfileConfig("1", 0), SerdeError, '"1"'),  # type: ignore[arg-type]
    (CgroupProfileConfig(0, 1.5), SerdeError, "1.5"),  # type: ignore[arg-type]
    (CgroupProfileConfig(None, 0), SerdeError, "null"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("limits", "kind", "text"), LIMITS_BAD, ids=lambda value: str(value)[-30:])
def test_limits(limits: CgroupProfileConfig, kind: type[Exception], text: str) -> None:
    with pysup.LocalSupervisor() as supervisor:
        for profiles in (CgroupProfiles(throttled=limits), CgroupProfiles(unthrottled=limits)):
            with nothing_left():
                with pytest.raises(kind) as caught:
                    supervisor.configure(ConfigureRequest("d", cgroup_profiles=profiles, start_profile="throttled"))
                assert text.lower() in str(caught.value).lower()
        with pytest.raises(NoSuchEntityError):  # what failed has left no domain behind
            supervisor.freeze(FreezeRequest("d"))


def hook(**fields: Any) -> list[Hook]:
    return [Hook(**{"name": "h", "path": "/bin/true"} | fields)]


CONFIGURATION_BAD: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"mounts": [BindMount("/a", "/b")]}, FailureError, ["mounts", "not supported yet"]),
    ({"capabilities": Capabilities()}, FailureError, ["capabilities", "not supported yet"]),
    ({"seccomp_filters": ["AAAA"]}, FailureError, ["seccomp_filters", "not supported yet"]),
    ({"mounts": "x"}, SerdeError, ["mounts", '"x"']),
    ({"seccomp_filters": [5]}, SerdeError, ["seccomp_filters[0]", "5"]),
    ({"start_profile": "fast"}, FailureError, ["start_profile", "'fast'"]),
    ({"start_profile": "throttled"}, FailureError, ["start_profile", "cgroup_profiles"]),
    ({"start_profile": 5}, SerdeError, ["start_profile", "5"]),
    ({"cgroup_profiles": 5}, SerdeError, ["cgroup_profiles", "5"]),
    ({"exec_user": ExecUser(2**32, None)}, SerdeError, ["exec_user.uid", str(2**32)]),
    ({"exec_user": ExecUser(None, 2**32)}, SerdeError, ["exec_user.gid", str(2**32)]),
    ({"exec_user": ExecUser(2**32 - 1, None)}, FailureError, ["exec_user.uid", str(2**32 - 1)]),
    ({"exec_user": ExecUser(None, 2**32 - 1)}, FailureError, ["exec_user.gid", str(2**32 - 1)]),
    ({"exec_user": ExecUser(-1, None)}, SerdeError, ["exec_user.uid", "-1"]),
    ({"exec_user": ExecUser("root", None)}, SerdeError, ["exec_user.uid", '"root"']),  # type: ignore[arg-type]
    ({"exec_user": "root"}, SerdeError, ["exec_user", '"root"']),
    ({"additional_start_hooks": hook(name="")}, FailureError, ["additional_start_hooks[0].name", "empty"]),
    ({"additional_start_hooks": hook(path="true")}, FailureError, ["additional_start_hooks[0].path", "'true'"]),
    ({"additional_start_hooks": hook(path="/nowhere")}, FailureError, ["additional_start_hooks[0].path", "/nowhere"]),
    ({"additional_start_hooks": hook(path="/etc")}, FailureError, ["additional_start_hooks[0].path", "/etc"]),
    ({"additional_start_hooks": hook(args=["\0"])}, FailureError, ["additional_start_hooks[0].args[0]", "NUL"]),
    ({"additional_start_hooks": hook(envs={"=": ""})}, FailureError, ["additional_start_hooks[0].envs", "'='"]),
    ({"additional_start_hooks": hook() + hook()}, FailureError, ["additional_start_hooks[1].name", "'h'"]),
    ({"additional_start_hooks": hook(args="x")}, SerdeError, ["additional_start_hooks[0].args", '"x"']),
    ({"additional_start_hooks": [None]}, SerdeError, ["additional_start_hooks[0]", "null"]),
]


@pytest.mark.parametrize(("fields", "kind", "texts"), CONFIGURATION_BAD, ids=lambda value: str(value)[:60])
def test_configuration(fields: dict[str, Any], kind: type[Exception], texts: list[str]) -> None:
    with pysup.LocalSupervisor() as supervisor, nothing_left():
        with pytest.raises(kind) as caught:
            supervisor.configure(ConfigureRequest("d", **fields))
        assert all(text in str(caught.value) for text in texts), str(caught.value)


HOOKS_BAD: list[tuple[str, list[str]]] = [
    ("exit 7", ["exit status 7"]),
    ("echo no luck; exit 7", ["exit status 7", "no luck"]),
    ("echo on stderr >&2; kill -9 $$", ["signal 9", "on stderr"]),
    ("sleep 600 & exit 7", ["exit status 7"]),
    ("yes | head -c 100000; exit 7", ["exit status 7"]),
]


@pytest.mark.parametrize(("script", "texts"), HOOKS_BAD)
def test_a_failing_hook_fails_the_start(script: str, texts: list[str], tmp_path: Path, mode: str) -> None:
    ran = tmp_path / "ran"
    hooks = [
        Hook("first", "/bin/sh", ["-c", f"touch {ran}"]),
        Hook("second", "/bin/sh", ["-c", script]),
        Hook("third", "/bin/sh", ["-c", f"rm {ran}"]),
    ]
    with nothing_left(), pysup.LocalSupervisor(cgroups=mode) as supervisor:
        supervisor.configure(ConfigureRequest("d", additional_start_hooks=hooks))
        with pytest.raises(FailureError) as caught:
            supervisor.start(StartRequest("d"))
        assert all(text in str(caught.value) for text in ['"second"', *texts])
        assert caught.value.step == "second"
        assert ran.exists()
        # The domain is as before, and starts once its hooks do not fail.
        with pytest.raises(InvalidStateError, match="configured"):
            supervisor.stop(StopRequest("d", soon()))
        supervisor.configure(ConfigureRequest("d"))
        supervisor.start(StartRequest("d"))


FOREVER = datetime.max.replace(tzinfo=timezone.utc)
DEADLINES_BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: soon(-1), FailureError, "past"),
    (lambda: soon(0), FailureError, "past"),
    (lambda: datetime(1, 1, 1, tzinfo=timezone.utc), FailureError, "0001-01-01"),
    (lambda: datetime.now() + timedelta(hours=1), SerdeError, "deadline"),
    (lambda: None, SerdeError, "None"),
    (lambda: 5.0, SerdeError, "5.0"),
    (lambda: "2100-01-01T00:00:00Z", SerdeError, "2100"),
]


@pytest.mark.parametrize(("when", "kind", "text"), DEADLINES_BAD)
def test_deadlines(driver: Driver, when: Callable[[], Any], kind: type[Exception], text: str) -> None:
    driver.exec("p", "/bin/sleep", "600")
    with nothing_left():
        for call in (
            lambda: driver.supervisor.kill(KillRequest(name="p", domain="d", deadline=when())),
            lambda: driver.supervisor.stop(StopRequest("d", when())),
        ):
            with pytest.raises(kind) as caught:
                call()
            assert text in str(caught.value)
    driver.quiet()  # nothing was sent
    driver.kill("p")


def test_a_deadline_that_is_very_far_away(driver: Driver) -> None:
    driver.exec("p", "/bin/sleep", "600")
    driver.supervisor.kill(KillRequest(name="p", domain="d", deadline=FOREVER))
    driver.supervisor.stop(StopRequest("d", FOREVER))


def test_odd_timeouts() -> None:
    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        for timeout in (0, -1, -float("inf"), 1e-12):
            with pytest.raises(TimeoutError):
                driver.stream.read(timeout)
        for number, timeout in enumerate((1e12, float("inf"), 2**70)):
            driver.sh(f"p{number}", "sleep 0.05; exit 5")
            assert driver.stream.read(timeout).event.exit_status == 5


@pytest.mark.parametrize("signal", [0, -1, 65, 10**9, 2**70, "9", None, 9.0])
def test_signals(driver: Driver, signal: Any) -> None:
    driver.exec("p", "/bin/sleep", "600")
    with pytest.raises(FailureError, match="signal must be"):
        driver.supervisor.send_signal("d", "p", signal)
    driver.quiet()


ARGUMENTS_BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"cgroups": "v3"}, ValueError),
    ({"cgroups": None}, ValueError),
    ({"queue_length": 0}, ValueError),
    ({"queue_length": -1}, ValueError),
    ({"queue_length": 2**20 + 1}, ValueError),
    ({"freeze_timeout": 0}, ValueError),
    ({"freeze_timeout": -1}, ValueError),
    ({"freeze_timeout": float("nan")}, ValueError),
    ({"freeze_timeout": float("inf")}, ValueError),
    ({"cgroup_parent": ""}, FailureError),
    ({"cgroup_parent": "relative"}, FailureError),
    ({"cgroup_parent": "/.."}, FailureError),
    ({"cgroup_parent": "/a/.."}, FailureError),
    ({"cgroup_parent": "/../a"}, FailureError),
    ({"cgroup_parent": "/a" * 1000}, FailureError),
    ({"cgroup_parent": "/a\0b"}, ValueError),
]


@pytest.mark.parametrize("kind", [pysup.LocalSupervisor, pysup.AsyncLocalSupervisor])
@pytest.mark.parametrize(("arguments", "error"), ARGUMENTS_BAD, ids=lambda value: str(value)[:40])
def test_arguments_of_a_supervisor(kind: Any, arguments: dict[str, Any], error: type[Exception]) -> None:
    with nothing_left(), pytest.raises(error, match=next(iter(arguments))):
        kind(**arguments)


# ---- nothing is left ----


@pytest.mark.parametrize("kind", list(KINDS))
def test_whole_lives(kind: str, mode: str) -> None:
    def live() -> None:
        with KINDS[kind](cgroups=mode) as supervisor:
            driver = Driver(supervisor)
            sink = io.BytesIO()
            driver.sh("short", "echo out; exit 3", stdout=sink)
            assert driver.ended("short") == ("exited", 3)
            driver.sh("long", "sleep 600 & sleep 600")
            driver.exec("other", "/bin/sleep", "600")
            supervisor.freeze(FreezeRequest("d"))
            supervisor.thaw(ThawRequest("d"))
            driver.kill("long")
            with pytest.raises(FailureError):
                driver.exec("p", "/nowhere")
            second = Driver(supervisor, "second")
            second.exec("p", "/bin/sleep", "600")
            second.stop()
            assert sink.getvalue() == b"out\n"
            driver.stream.close()

    live()  # what is made once and kept
    with nothing_left():
        for _ in range(20):
            live()


class Limited:
    """Calls with as few descriptors as make them succeed; every failure before that must leave no trace."""

    def __init__(self) -> None:
        self.failures = 0

    def __call__(self, call: Callable[[], Any], spare: int = 0) -> Any:
        """`spare`: descriptors that may be kept over all failures together, for the next try."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        first = len(possessions()["descriptors"])
        for limit in range(max(3, first - 4), 150):
            before = possessions()
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                result = call()
            except FailureError as error:
                code = error.errno
            else:
                return result
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert code == errno.EMFILE
            if spare:
                now = possessions()
                assert first <= len(now["descriptors"]) <= first + spare
                before["descriptors"] = now["descriptors"]
            assert_back(before)
            self.failures += 1
        raise AssertionError("it never succeeds")


def test_out_of_descriptors(mode: str) -> None:
    """The limit goes up from nothing until the call succeeds, for each call."""
    limited = Limited()
    with nothing_left():
        supervisor = limited(lambda: pysup.LocalSupervisor(cgroups=mode))
        with supervisor:
            choices = [provider.choice for provider in supervisor.providers()]
            with pysup.LocalSupervisor(cgroups=mode) as rich:
                assert choices == [provider.choice for provider in rich.providers()], "quietly weaker"
            limited(lambda: supervisor.start(StartRequest("d")))
            stream = limited(lambda: supervisor.events(EventsRequest("d")))
            for number in range(3):
                name = f"p{number}"
                limited(
                    lambda name=name: supervisor.exec(
                        ExecRequest(name=name, domain="d", path="/bin/sh", args=["-c", "sleep 600 & wait"])
                    ),
                    spare=3,  # a leaf that was made for it
                )
            sink = io.BytesIO()
            limited(
                lambda: supervisor.exec(
                    ExecRequest(name="echo", domain="d", path="/bin/echo", args=["x"], stdout=sink, stderr=sink)
                ),
                spare=3,
            )
            assert stream.read(PATIENCE).event.name == "echo"
            with pytest.raises(TimeoutError):  # the failures have no events
                stream.read(0.05)
            limited(lambda: supervisor.freeze(FreezeRequest("d")))
            limited(lambda: supervisor.thaw(ThawRequest("d")))
            for number in range(2):
                supervisor.kill(KillRequest(name=f"p{number}", domain="d", deadline=soon()))
                assert stream.read(PATIENCE).event.name == f"p{number}"
            supervisor.stop(StopRequest("d", soon()))
            assert stream.read(PATIENCE).event.name == "p2"
            assert sink.getvalue() == b"x\n"
            del stream
    assert limited.failures > 20


def test_stop_without_descriptors(mode: str) -> None:
    """It fails where it needs one, and can be called again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with nothing_left(), pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        driver.exec("p", "/bin/sleep", "600")
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with contextlib.suppress(FailureError):
                supervisor.stop(StopRequest("d", soon(0.5)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with contextlib.suppress(InvalidStateError):  # it has succeeded
            driver.stop()
        assert driver.ended("p") == ("signaled", 9)
        supervisor.start(StartRequest("d"))
        driver.sh("p", "exit 3")
        assert driver.ended("p") == ("exited", 3)
        del driver  # and its stream


def test_exit_without_descriptors(mode: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with nothing_left():
        supervisor = pysup.LocalSupervisor(cgroups=mode)
        driver = Driver(supervisor)
        driver.exec("p", "/bin/sleep", "600")
        driver.kill("p")
        driver.stream.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with contextlib.suppress(FailureError):
                supervisor.exit()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        del driver
        with pytest.raises(InvalidStateError, match="has ended"):
            supervisor.ping()


@pytest.mark.root
def test_out_of_processes(mode: str) -> None:
    """RLIMIT_NPROC counts for the user that a process becomes, from its execve on."""
    nobody = 64000 + os.getpid() % 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    with nothing_left(), pysup.LocalSupervisor(cgroups=mode) as supervisor:
        supervisor.configure(ConfigureRequest("d", exec_user=ExecUser(nobody, nobody)))
        resource.setrlimit(resource.RLIMIT_NPROC, (2, hard))
        try:
            driver = Driver(supervisor)
            driver.exec("p0", "/bin/sleep", "600")
            driver.exec("p1", "/bin/sleep", "600")
            with contextlib.suppress(FailureError):  # whether the limit counts this one is the kernel's affair
                driver.exec("p2", "/bin/sleep", "600")
            with pytest.raises(FailureError) as caught:
                driver.exec("p3", "/bin/sleep", "600")
            assert caught.value.errno == errno.EAGAIN
            driver.kill("p0")
        finally:
            resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        assert driver.ended("p0") == ("signaled", 9)
        driver.quiet()
        del driver, caught  # whose traceback holds the stream
