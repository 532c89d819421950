"""The contract of a supervisor, for threads and asyncio, with each kind of cgroup that there is and without any."""

from __future__ import annotations

import io
import os
import pathlib
import signal
import sys
import time
from datetime import timedelta
from typing import Any

import pytest
from support import NOBODY, PATIENCE, Driver, alive, soon, until

import pysup
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    CycleDeltaMetrics,
    EventsRequest,
    ExecRequest,
    ExecUser,
    FreezeRequest,
    Hook,
    KillRequest,
    StartRequest,
    StopRequest,
    TerminateRequest,
    ThawRequest,
)

pytestmark = pytest.mark.kernel

BURN = "while :; do :; done"


def provided(supervisor: Any, need: str) -> str:
    return next(provider.choice for provider in supervisor.providers() if provider.need == need)


def need(supervisor: Any, *needs: str) -> None:
    for one in needs:
        if provided(supervisor, one) == "none":
            pytest.skip(f"no {one} can be had without cgroup rights")


def freeze(d: Driver) -> CycleDeltaMetrics:
    metrics: CycleDeltaMetrics = d.supervisor.freeze(FreezeRequest(d.domain)).cycle_delta_metrics
    return metrics


def thaw(d: Driver) -> None:
    d.supervisor.thaw(ThawRequest(d.domain))


# --- the nine scenarios ----------------------------------------------------------------------------------


def test_exec(d: Driver) -> None:
    d.exec("sleeper", "/bin/sleep", "600")
    d.quiet()


def test_exec_of_a_missing_file(d: Driver) -> None:
    with pytest.raises(pysup.FailureError, match="/no/such/program") as caught:
        d.exec("p", "/no/such/program")
    assert (caught.value.errno, caught.value.step) == (2, "exec")
    d.quiet()
    d.sh("p", "exit 0")  # the name was not taken
    assert d.ended("p") == ("exited", 0)


def test_event_of_an_exit(d: Driver) -> None:
    before = time.time_ns() // 10**6
    d.sh("p", "exit 3")
    event = d.event()
    assert event.event.to_dict() == {
        "type": "process_termination",
        "domain": "d",
        "name": "p",
        "cause": "exited",
        "signo": None,
        "exit_status": 3,
        "size": None,
    }
    assert before <= event.timestamp_millis <= time.time_ns() // 10**6
    d.quiet()


def test_terminate(d: Driver) -> None:
    d.exec("p", "/bin/sleep", "600")
    d.supervisor.terminate(TerminateRequest(domain="d", name="p"))
    assert d.ended("p") == ("signaled", signal.SIGTERM)


def test_terminate_of_an_exited_process(d: Driver) -> None:
    d.sh("p", "exit 0")
    assert d.ended("p") == ("exited", 0)
    d.supervisor.terminate(TerminateRequest(domain="d", name="p"))
    d.quiet()


def test_kill(d: Driver) -> None:
    d.sh("p", "trap '' TERM INT HUP; while :; do sleep 1; done")
    d.kill("p")
    assert d.stream.read(1).event.name == "p"  # it was queued when kill returned


def test_kill_of_an_exited_process(d: Driver) -> None:
    d.sh("p", "exit 7")
    assert d.ended("p") == ("exited", 7)
    d.kill("p")
    d.quiet()


def test_kill_of_an_unknown_process(d: Driver) -> None:
    with pytest.raises(pysup.NoSuchEntityError, match='"p"'):
        d.kill("p")
    with pytest.raises(pysup.NoSuchEntityError, match='"elsewhere"'):
        d.supervisor.kill(KillRequest(domain="elsewhere", name="p", deadline=soon()))


def test_stop_of_several(d: Driver) -> None:
    names = {f"p{i}" for i in range(5)}
    for name in sorted(names):
        d.exec(name, "/bin/sleep", "600")
    d.stop()
    events = [d.stream.read(PATIENCE).event for _ in names]
    assert {event.name for event in events} == names
    assert {(event.cause, event.signo) for event in events} == {("signaled", signal.SIGKILL)}
    d.quiet()


# --- states ----------------------------------------------------------------------------------------------


def test_each_state_allows_what_it_should(supervisor: Any) -> None:
    domain = "x"
    calls: dict[str, Any] = {
        "configure": lambda: supervisor.configure(ConfigureRequest(domain)),
        "start": lambda: supervisor.start(StartRequest(domain)),
        "exec": lambda: supervisor.exec(ExecRequest(domain=domain, name="p", path="/bin/sh", args=["-c", "exit 0"])),
        "freeze": lambda: supervisor.freeze(FreezeRequest(domain)),
        "thaw": lambda: supervisor.thaw(ThawRequest(domain)),
        "stop": lambda: supervisor.stop(StopRequest(domain, soon())),
    }

    def refuses(state: str, *names: str) -> None:
        for name in names:
            with pytest.raises(pysup.InvalidStateError, match=f"is {state}"):
                calls[name]()

    for name in ("exec", "freeze", "thaw", "stop"):
        with pytest.raises(pysup.NoSuchEntityError):
            calls[name]()
    calls["configure"]()
    refuses("configured", "exec", "freeze", "thaw", "stop")
    calls["start"]()
    refuses("started", "configure", "start")
    calls["thaw"]()
    calls["freeze"]()
    refuses("frozen", "configure", "start", "exec", "freeze")
    calls["thaw"]()
    calls["exec"]()
    calls["freeze"]()
    calls["stop"]()
    refuses("stopped", "exec", "freeze", "thaw", "stop")
    calls["configure"]()
    calls["start"]()
    calls["stop"]()


def test_a_name_is_free_again_once_its_process_has_ended(d: Driver) -> None:
    d.exec("p", "/bin/sleep", "600")
    with pytest.raises(pysup.InvalidStateError, match=r'"p".*has not ended'):
        d.sh("p", "exit 0")
    d.kill("p")
    assert d.ended("p") == ("signaled", signal.SIGKILL)
    d.sh("p", "exit 1")
    assert d.ended("p") == ("exited", 1)


def test_a_stopped_domain_starts_again(d: Driver) -> None:
    for status in (1, 2, 3):
        d.sh("p", f"exit {status}")
        assert d.ended("p") == ("exited", status)
        d.stop()
        d.supervisor.start(StartRequest("d"))


def test_nothing_goes_on_after_exit(supervisor: Any) -> None:
    d = Driver(supervisor)
    d.exec("p", "/bin/sleep", "600")
    supervisor.ping()
    supervisor.exit()
    supervisor.exit()
    assert d.ended("p") == ("signaled", signal.SIGKILL)
    with pytest.raises(EOFError):
        d.event()
    for call in (supervisor.ping, lambda: supervisor.start(StartRequest("d")), lambda: d.kill("p")):
        with pytest.raises(pysup.InvalidStateError, match="ended"):
            call()


# --- freezing --------------------------------------------------------------------------------------------


def test_a_frozen_burner_stands_still(d: Driver, tmp_path: pathlib.Path) -> None:
    counter = tmp_path / "counter"
    d.sh("burner", f"i=0; while :; do i=$((i+1)); echo $i > {counter}; done")
    until(lambda: counter.exists() and counter.read_text().strip())
    used = 0
    for _ in range(3):
        used += freeze(d).domain_cpu_run_ns
        seen = counter.read_bytes()
        time.sleep(0.1)
        assert counter.read_bytes() == seen
        thaw(d)
        until(lambda seen=seen: counter.read_bytes() not in (seen, b""))
    assert used + freeze(d).domain_cpu_run_ns > 0


def test_freeze_stops_what_a_process_has_forked(d: Driver, tmp_path: pathlib.Path) -> None:
    counters = [tmp_path / str(i) for i in range(4)]
    count = "i=0; while :; do i=$((i+1)); echo $i > {}; done &"
    d.sh("tree", " ".join(count.format(path) for path in counters) + " wait")
    until(lambda: all(path.exists() for path in counters))
    freeze(d)
    seen = [path.read_bytes() for path in counters]
    time.sleep(0.1)
    assert [path.read_bytes() for path in counters] == seen


def test_kill_works_on_a_frozen_domain(d: Driver) -> None:
    d.exec("p", "/bin/sleep", "600")
    d.exec("q", "/bin/sleep", "600")
    freeze(d)
    d.kill("p")
    assert d.ended("p") == ("signaled", signal.SIGKILL)
    with pytest.raises(pysup.InvalidStateError, match="frozen"):
        d.sh("r", "exit 0")
    thaw(d)
    d.quiet()


def test_stop_works_on_a_frozen_domain_and_gives_the_last_cycle(d: Driver) -> None:
    d.exec("p", "/bin/sleep", "600")
    frozen = freeze(d)
    time.sleep(0.05)
    stopped = d.stop()
    assert (stopped.domain_run_ns, stopped.domain_cpu_run_ns) == (frozen.domain_run_ns, frozen.domain_cpu_run_ns)
    assert d.ended("p") == ("signaled", signal.SIGKILL)


def test_the_metrics_of_a_cycle(d: Driver) -> None:
    d.sh("burner", BURN)
    thaw(d)  # a new cycle
    began = time.monotonic_ns()
    time.sleep(0.3)
    metrics = freeze(d)
    wall = time.monotonic_ns() - began
    assert 0.3e9 <= metrics.domain_run_ns <= wall + 10**9
    assert 0 < metrics.domain_cpu_run_ns <= metrics.domain_run_ns * 1.1
    assert metrics.domain_max_memory_usage_bytes > 0
    assert metrics.microvm_cpu_run_ns > 0
    assert "lo" in (metrics.microvm_network_interfaces or {})
    time.sleep(0.2)
    thaw(d)
    again = freeze(d)
    assert again.domain_run_ns < metrics.domain_run_ns  # the time in the freezer belongs to no cycle


def test_the_peak_of_memory(d: Driver) -> None:
    hog = "b = bytearray(96 << 20); b[::4096] = b'x' * len(b[::4096]); print(flush=True); input()"
    read_end, write_end = os.pipe()
    stdin, hold = os.pipe()
    with open(read_end, "rb") as said, open(write_end, "wb") as out, open(stdin, "rb") as source, open(hold, "wb"):
        d.exec("hog", sys.executable, "-S", "-c", hog, stdout=out, stdin=source)
        out.close()
        assert said.readline()
        assert freeze(d).domain_max_memory_usage_bytes >= 96 << 20


def test_the_network_of_a_cycle(d: Driver) -> None:
    import socket

    thaw(d)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x" * 5000, receiver.getsockname())
        receiver.recv(8192)
    interfaces = freeze(d).microvm_network_interfaces
    assert interfaces is not None
    assert interfaces["lo"].received_bytes >= 5000


# --- limits ----------------------------------------------------------------------------------------------


def limited(supervisor: Any, cpu: float = 0, memory: int = 0, start: str = "unthrottled") -> Driver:
    profile = CgroupProfileConfig(cpu, memory)
    supervisor.configure(ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile), start_profile=start))
    return Driver(supervisor)


def test_a_cpu_limit_holds(supervisor: Any) -> None:
    need(supervisor, "cpu_limit")
    d = limited(supervisor, cpu=0.2)
    d.sh("burner", BURN)
    time.sleep(0.2)
    thaw(d)
    time.sleep(1.5)
    metrics = freeze(d)
    assert 0.1 < metrics.domain_cpu_run_ns / metrics.domain_run_ns < 0.3


def test_an_allocator_over_its_limit_dies_oom_killed(supervisor: Any) -> None:
    need(supervisor, "memory_limit", "oom")
    d = limited(supervisor, memory=64 << 20)
    d.exec("bystander", "/bin/sleep", "600")
    d.exec("hog", sys.executable, "-S", "-c", "b = bytearray(256 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1")
    assert d.ended("hog") == ("oom_killed", signal.SIGKILL)
    # That was counted; another's SIGKILL is no OOM kill.
    d.sh("victim", "kill -9 $$")
    assert d.ended("victim") == ("signaled", signal.SIGKILL)
    assert d.supervisor.limits("d") == (0, 64 << 20)


def test_thaw_applies_the_throttled_profile(supervisor: Any) -> None:
    need(supervisor, "cpu_limit")
    profiles = CgroupProfiles(CgroupProfileConfig(0.25, 0), CgroupProfileConfig(1.5, 0))
    supervisor.configure(ConfigureRequest("d", cgroup_profiles=profiles, start_profile="unthrottled"))
    d = Driver(supervisor)
    assert supervisor.limits("d") == (1.5, 0)
    freeze(d)
    thaw(d)
    assert supervisor.limits("d") == (0.25, 0)


def test_a_throttled_domain_freezes_and_stops_at_once(supervisor: Any) -> None:
    need(supervisor, "cpu_limit")
    d = limited(supervisor, cpu=0.01)
    d.sh("burner", BURN)
    time.sleep(0.1)
    freeze(d)
    thaw(d)
    d.stop()


def test_limits_that_cannot_be_had_are_refused_with_the_reason(supervisor: Any) -> None:
    if provided(supervisor, "cpu_limit") != "none":
        pytest.skip("limits can be had here")
    profile = CgroupProfileConfig(0.5, 64 << 20)
    with pytest.raises(pysup.FailureError, match=r"throttled: cpu_limit cannot be had .* cgroup"):
        supervisor.configure(ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile)))
    with pytest.raises(pysup.NoSuchEntityError):
        supervisor.freeze(FreezeRequest("d"))


# --- what a process is given -----------------------------------------------------------------------------


def output_of(d: Driver, script: str, **fields: Any) -> str:
    """What a shell says, by way of a sink without a descriptor."""
    sink = io.BytesIO()
    d.sh("asked", script, stdout=sink, **fields)
    assert d.ended("asked") == ("exited", 0)
    d.stop()  # waits until the sink has all
    d.supervisor.start(StartRequest("d"))
    return sink.getvalue().decode()


def test_descriptors(d: Driver, tmp_path: pathlib.Path) -> None:
    files = [(tmp_path / name).open("w+b", buffering=0) for name in ("out", "err", "three", "four")]
    (tmp_path / "in").write_bytes(b"said\n")
    with (tmp_path / "in").open("rb") as source:
        d.sh(
            "p",
            "read word; echo $word; echo oops >&2; echo 3 >&3; echo 4 >&4; ls /proc/self/fd >&4",
            stdin=source,
            stdout=files[0],
            stderr=files[1],
            extra_files=files[2:],
        )
    assert d.ended("p") == ("exited", 0)
    texts = [pathlib.Path(file.name).read_text() for file in files]
    for file in files:
        file.close()
    assert texts[:3] == ["said\n", "oops\n", "3\n"]
    assert texts[3].split() == ["4", "0", "1", "2", "3", "4", "5"]  # 5 is ls's own directory


def test_environment_and_directory(d: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSUP_TEST", "inherited")
    assert output_of(d, "echo $PYSUP_TEST; pwd") == "inherited\n/\n"
    assert output_of(d, "echo $PYSUP_TEST$A; pwd", env={"A": "given"}, cwd="/usr") == "given\n/usr\n"
    assert "PATH" not in output_of(d, "cat /proc/self/environ", env={})


def test_a_large_output_arrives_whole(d: Driver) -> None:
    assert len(output_of(d, "head -c 3000000 /dev/zero")) == 3000000


def test_arguments(d: Driver) -> None:
    sink = io.BytesIO()
    d.exec("p", "/usr/bin/printf", "%s|", "a b", "", "ü", stdout=sink)
    assert d.ended("p") == ("exited", 0)
    d.stop()
    assert sink.getvalue().decode() == "a b||ü|"


@pytest.mark.root
def test_identity(supervisor: Any) -> None:
    supervisor.configure(ConfigureRequest("d", exec_user=ExecUser(NOBODY, NOBODY)))
    d = Driver(supervisor)
    assert output_of(d, "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status").split() == [
        "Uid:", *[str(NOBODY)] * 4, "Gid:", *[str(NOBODY)] * 4, "Groups:", "CapEff:", "0" * 16
    ]  # fmt: skip


def test_an_identity_without_rights_is_refused(supervisor: Any) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may become anyone")
    with pytest.raises(pysup.FailureError, match=r"exec_user\.uid.*CAP_SETUID"):
        supervisor.configure(ConfigureRequest("d", exec_user=ExecUser(0, 0)))


# --- trees -----------------------------------------------------------------------------------------------

ESCAPE = """
import os, signal, sys, time
def report():
    with open(sys.argv[1], "a") as file: file.write(f"{os.getpid()}\\n")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
report()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        report()
        time.sleep(600)
    os._exit(0)
os.wait()
report()
time.sleep(600)
"""


def test_kill_reaches_every_descendant_and_no_other(d: Driver, tmp_path: pathlib.Path) -> None:
    pids = tmp_path / "pids"
    d.exec("bystander", "/bin/sleep", "600")
    d.exec("p", sys.executable, "-S", "-c", ESCAPE, str(pids))
    until(lambda: pids.exists() and pids.read_text().count("\n") == 3)
    d.kill("p")
    assert d.ended("p") == ("signaled", signal.SIGKILL)
    for pid in set(pids.read_text().split()):
        assert not alive(pid)
    d.quiet()
    d.kill("bystander")


def test_stop_reaches_what_an_ended_process_left_behind(d: Driver, tmp_path: pathlib.Path) -> None:
    pid = tmp_path / "pid"
    d.sh("p", f"(setsid sleep 600 & echo $! > {pid}) ; exit 5")
    assert d.ended("p") == ("exited", 5)
    until(lambda: pid.exists() and pid.read_text().strip())
    d.stop()
    assert not alive(pid.read_text().strip())


def test_signals_reach_the_group(d: Driver) -> None:
    d.sh("p", "sleep 600 & wait")
    d.supervisor.send_signal("d", "p", signal.SIGHUP)
    assert d.ended("p") == ("signaled", signal.SIGHUP)


def test_a_deadline_that_is_too_short(d: Driver) -> None:
    d.exec("p", "/bin/sleep", "600")
    for call in (
        lambda: d.supervisor.kill(KillRequest(domain="d", name="p", deadline=soon() - timedelta(hours=1))),
        lambda: d.stop(-1),
    ):
        with pytest.raises(pysup.FailureError, match="past"):
            call()
    d.quiet()


# --- hooks -----------------------------------------------------------------------------------------------


def shell_hook(name: str, script: str, **fields: Any) -> Hook:
    return Hook(name, "/bin/sh", ["-c", script], **fields)


def test_hooks_run_in_order_with_their_own_environment(supervisor: Any, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    hooks = [
        shell_hook("first", f"sleep 0.05; echo 1 $A $PATH >> {log}", envs={"A": "a"}),
        shell_hook("second", f"echo 2 >> {log}"),
    ]
    supervisor.configure(ConfigureRequest("d", additional_start_hooks=hooks))
    d = Driver(supervisor)
    lines = log.read_text().splitlines()
    assert lines[0].startswith("1 a")
    assert lines[1:] == ["2"]
    d.quiet()


def test_a_hook_that_fails_undoes_the_start(supervisor: Any, tmp_path: pathlib.Path) -> None:
    never = tmp_path / "never"
    hooks = [shell_hook("bad", "echo because >&2; exit 9"), shell_hook("next", f"touch {never}")]
    supervisor.configure(ConfigureRequest("d", additional_start_hooks=hooks))
    with pytest.raises(pysup.FailureError, match=r'"bad".*exit status 9: because') as caught:
        supervisor.start(StartRequest("d"))
    assert caught.value.step == "bad"
    assert not never.exists()
    supervisor.configure(ConfigureRequest("d"))
    Driver(supervisor).sh("p", "exit 0")


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (Hook("h", "relative"), "absolute"),
        (Hook("h", "/no/such/hook"), "no file"),
        (Hook("h", "/etc/passwd"), "not executable"),
        (Hook("", "/bin/sh"), "empty"),
    ],
)
def test_hooks_are_checked_by_configure(hook: Hook, message: str) -> None:
    with pysup.LocalSupervisor() as supervisor, pytest.raises(pysup.FailureError, match=message):
        supervisor.configure(ConfigureRequest("d", additional_start_hooks=[hook]))


# --- the rest of the interface ---------------------------------------------------------------------------


def test_it_is_what_the_protocols_ask_for() -> None:
    from pysup import api

    with pysup.LocalSupervisor() as supervisor:
        assert isinstance(supervisor, api.SupervisorClient)
        supervisor.start(StartRequest("d"))
        assert isinstance(supervisor.events(EventsRequest("d")), api.EventStream)
    assert issubclass(pysup.AsyncLocalSupervisor, api.AsyncSupervisorClient)
    assert issubclass(pysup.AsyncEventStream, api.AsyncEventStream)


def test_every_need_names_its_provider(supervisor: Any) -> None:
    providers = supervisor.providers()
    needs = "freeze kill tree cpu memory cpu_limit memory_limit oom microvm_cpu idle_cpu network"
    assert [provider.need for provider in providers] == needs.split()
    for provider in providers:
        assert provider.choice in ("cgroup v2", "cgroup v1", "process tree", "procfs", "none")
        assert provider.detail
        if provider.choice in ("none", "process tree"):
            assert provider.reason


def test_the_public_names() -> None:
    assert sorted(pysup.__all__) == pysup.__all__
    for name in pysup.__all__:
        assert hasattr(pysup, name)
