"""The `pysup` command, as a user runs it: a process with streams, signals and an exit status."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pysup

PYSUP = [sys.executable, "-m", "pysup"]
ROOT = pathlib.Path(__file__).resolve().parent.parent

# Far beyond what anything here takes, for an emulated machine is slow.
PATIENCE = 300

Result = subprocess.CompletedProcess[str]


def pysup_(*arguments: str, **options: Any) -> Result:
    options = {"capture_output": True, "encoding": "utf-8", "timeout": PATIENCE, "cwd": "/", **options}
    return subprocess.run([*PYSUP, *arguments], **options)


def run(*arguments: str, **options: Any) -> Result:
    return pysup_("run", *arguments, **options)


def sh(script: str, *options: str, **more: Any) -> Result:
    return run(*options, "--", "/bin/sh", "-c", script, **more)


def assert_fails(result: Result, status: int, *words: str) -> None:
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("pysup: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def summary(result: Result) -> dict[str, Any]:
    """The JSON object on stderr, which is its last line."""
    loaded = json.loads(result.stderr.splitlines()[-1])
    assert isinstance(loaded, dict)
    return loaded


def how(report: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(report[key] for key in ("status", "cause", "exit_status", "signo"))


def need(name: str) -> None:
    """Skips where the machine does not have it."""
    with pysup.LocalSupervisor() as supervisor:
        for provider in supervisor.providers():
            if provider.need == name and provider.choice == "none":
                pytest.skip(f"no {name}: {provider.reason}")


# --- Without a domain ------------------------------------------------------------------------------------


def test_version() -> None:
    result = pysup_("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"pysup {pysup.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["run"], ["doctor"], ["demo"]])
def test_help(command: list[str]) -> None:
    result = pysup_(*command, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"usage: {' '.join(['pysup', *command])}")
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_help_of_run_tells_the_exit_statuses() -> None:
    text = run("--help").stdout
    assert all(str(status) in text for status in (124, 125, 126, 127, 128))


BUFFERING = pytest.mark.parametrize("unbuffered", ["", "1"])


@BUFFERING
def test_output_into_a_closed_pipe_is_silent(unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    read, write = os.pipe()
    os.close(read)
    try:
        result = pysup_("doctor", env=environment, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert result.stderr == ""
    assert result.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no command", "run, doctor, demo"]),
        (["nonsense"], ["'nonsense'", "run, doctor, demo"]),
        (["--nonsense"], ["--nonsense"]),
        (["doctor", "x"], ["x", "pysup doctor --help"]),
        (["run"], ["no command", "pysup run --help"]),
        (["run", "--"], ["no command"]),
        (["run", "--quiet", "--json", "--", "true"], ["--json", "--quiet"]),
        (["run", "--cpu", "x", "--", "true"], ["--cpu", "'x'", "0.5"]),
        (["run", "--cpu", "-1", "--", "true"], ["--cpu"]),
        (["run", "--cpu", "nan", "--", "true"], ["--cpu", "'nan'"]),
        (["run", "--cpu", "inf", "--", "true"], ["--cpu", "'inf'"]),
        (["run", "--memory", "12Q", "--", "true"], ["--memory", "'12Q'", "256M"]),
        (["run", "--memory", "0", "--", "true"], ["--memory", "'0'"]),
        (["run", "--memory", "99999999999T", "--", "true"], ["--memory"]),
        (["run", "--timeout", "1 day", "--", "true"], ["--timeout", "'1 day'", "500ms", "10s", "2m", "1h"]),
        (["run", "--timeout", "0", "--", "true"], ["--timeout", "'0'"]),
        (["run", "--env", "X", "--", "true"], ["--env", "'X'", "NAME=VALUE"]),
        (["run", "--env", "=X", "--", "true"], ["--env", "'=X'"]),
        (["run", "--user", "no-such-user", "--", "true"], ["--user", "'no-such-user'"]),
        (["run", "--user", "root:no-such-group", "--", "true"], ["'no-such-group'"]),
        (["run", "--user", "987654", "--", "true"], ["987654:GROUP"]),
        (["run", "--user", "4294967295:0", "--", "true"], ["--user"]),
        (["run", "--user", "0:", "--", "true"], ["USER:GROUP"]),
        (["run", "--cwd", "/no/such", "--", "true"], ["--cwd", "/no/such"]),
        (["run", "--timeou", "1", "--", "true"], ["--timeou"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], words: list[str]) -> None:
    assert_fails(pysup_(*arguments), 125, *words)


# --- run: streams, status, surroundings ------------------------------------------------------------------


def test_streams_pass_through() -> None:
    result = sh("cat; echo out; echo err >&2", input="in\n")
    assert result.returncode == 0
    assert result.stdout == "in\nout\n"
    first, *rest = result.stderr.splitlines()
    assert first == "err"
    assert [line.startswith("pysup: exited with status 0; wall ") for line in rest] == [True]
    assert "CPU" in rest[0]
    assert "peak memory" in rest[0]


def test_streams_are_the_same_files_and_there_are_no_others() -> None:
    ours = [os.stat("/dev/null")] * 3
    result = run(
        "--quiet",
        "--",
        sys.executable,
        "-c",
        "import os, json\n"
        "json.dump([[os.fstat(i).st_rdev for i in range(2)], sorted(map(int, os.listdir('/proc/self/fd')))],"
        " os.fdopen(os.dup(2), 'w'))",
        capture_output=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    devices, descriptors = json.loads(result.stderr)
    assert devices == [each.st_rdev for each in ours[:2]]
    assert descriptors[:3] == [0, 1, 2]
    assert len(descriptors) <= 5  # with the copy of 2 and the directory's own


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: pathlib.Path) -> None:
    script = f'"$@" {closed}'
    mark = tmp_path / "mark"
    shell = [
        "/bin/sh",
        "-c",
        script,
        "sh",
        *PYSUP,
        "run",
        "--",
        "/bin/sh",
        "-c",
        f"cat; echo x >{mark}; echo y; exit 3",
    ]
    result = subprocess.run(shell, capture_output=True, text=True, timeout=PATIENCE, cwd="/", stdin=subprocess.DEVNULL)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    assert result.stdout == ("" if ">&- " in closed or closed == ">&-" else "y\n")
    assert mark.read_text() == "x\n"


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_exit_status_is_the_command_s(status: int) -> None:
    assert sh(f"exit {status}").returncode == status


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_exit_status_of_a_signal(name: str) -> None:
    result = sh(f"ulimit -c 0; kill -{name} $$")
    assert result.returncode == 128 + getattr(signal, f"SIG{name}")
    assert f"killed by SIG{name}" in result.stderr


def test_a_command_without_dashes_keeps_its_own() -> None:
    result = run("--quiet", "echo", "--json", "--", "-n")
    assert (result.stdout, result.stderr) == ("--json -- -n\n", "")


def test_command_is_not_there(tmp_path: pathlib.Path) -> None:
    assert_fails(run("--", "no-such-command"), 127, "no-such-command", "not found")
    assert_fails(run("--", "/no/such/command"), 127, "/no/such/command")
    assert_fails(run("--", ""), 127, "''")
    assert_fails(run("--", "two\nlines"), 127, "two lines")


def test_command_cannot_be_executed(tmp_path: pathlib.Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert_fails(run("--", str(plain)), 126, str(plain), "ermission")
    assert_fails(run("--", "/"), 126, "/")
    assert_fails(run("--env", f"PATH={tmp_path}", "--", "plain"), 126, "plain: permission denied")
    plain.chmod(0o755)
    assert_fails(run("--", str(plain)), 126, str(plain))


def test_command_is_looked_up_in_its_own_path(tmp_path: pathlib.Path) -> None:
    tool = tmp_path / "bin" / "my-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    for path in (f"/no/such:{tool.parent}", "bin"):
        result = run("--env", f"PATH={path}", "--cwd", str(tmp_path), "--", "my-tool")
        assert (result.returncode, result.stdout) == (0, "found\n")
    result = run("--cwd", str(tmp_path), "--", "bin/my-tool")
    assert (result.returncode, result.stdout) == (0, "found\n")


def test_environment() -> None:
    result = sh('echo "$INHERITED $A $B"', "--env", "A=1", "--env", "B=x=y", env={**os.environ, "INHERITED": "i"})
    assert result.stdout == "i 1 x=y\n"


def test_environment_need_not_be_unicode() -> None:
    command = [os.fsencode(each) for each in PYSUP]
    command += [b"run", b"--quiet", b"--env", b"X=\xff", b"--", b"/bin/sh", b"-c", b'echo "$X$Y"']
    environment = {**os.environb, b"Y": b"\xfe"}
    result = subprocess.run(command, cwd="/", env=environment, capture_output=True, timeout=PATIENCE)
    assert (result.stdout, result.stderr) == (b"\xff\xfe\n", b"")


def test_arguments_need_not_be_unicode() -> None:
    command = [os.fsencode(each) for each in PYSUP]
    command += [b"run", b"--quiet", b"--", b"/bin/echo", b"\xfe"]
    result = subprocess.run(command, cwd="/", capture_output=True, timeout=PATIENCE)
    assert (result.stdout, result.stderr) == (b"\xfe\n", b"")


def test_working_directory(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sub").mkdir()
    assert sh("pwd -P", cwd=tmp_path).stdout.strip() == str(tmp_path.resolve())
    assert sh("pwd -P", "--cwd", "sub", cwd=tmp_path).stdout.strip() == str((tmp_path / "sub").resolve())


@pytest.mark.root
def test_user() -> None:
    assert sh("id -u; id -g; id -G", "--user", "65534:65533").stdout == "65534\n65533\n65533\n"
    assert sh("id -u; id -g", "--user", "0").stdout == "0\n0\n"


def test_what_the_command_leaves_behind_is_killed() -> None:
    result = sh("sleep 3600 & echo $!", "--quiet", stdin=subprocess.DEVNULL)
    assert result.returncode == 0
    try:
        state = pathlib.Path(f"/proc/{int(result.stdout)}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return
    assert state == "Z"  # dead; it is for the machine's init to reap it


# --- run: the summary ------------------------------------------------------------------------------------


def test_quiet_says_nothing() -> None:
    assert sh("exit 3", "--quiet").stderr == ""


@pytest.mark.kernel
def test_json_summary_has_the_model_s_figures() -> None:
    result = sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3", "--json")
    assert result.stderr.count("\n") == 1
    report = summary(result)
    assert how(report) == (3, "exited", 3, None)
    assert report["timed_out"] is False
    assert set(report) > set(pysup.model.CycleDeltaMetrics().to_dict())
    assert 0 < report["wall_ns"] <= report["domain_run_ns"]
    assert report["domain_cpu_run_ns"] > 0
    report = summary(sh("kill -TERM $$", "--json"))
    assert how(report) == (143, "signaled", None, 15)


# --- run: signals and time-outs --------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `pysup run` of a script and returns when that has said that it is ready."""
    started = []

    def start(script: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*PYSUP, "run", *options, "--", "/bin/sh", "-c", script],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has them ignore it, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


Start = Callable[..., "subprocess.Popen[str]"]

WAIT = "while :; do sleep 0.1; done"


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"])
def test_signal_is_passed_on(running: Start, name: str) -> None:
    process = running(f"trap 'echo got {name}; exit 7' {name}; echo ready; {WAIT}")
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (7, f"got {name}\n")


def test_ctrl_c_ends_the_command_with_the_shell_s_status(running: Start) -> None:
    process = running(f"echo ready; {WAIT}")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert "killed by SIGINT" in err


@pytest.mark.kernel
def test_second_ctrl_c_kills(running: Start) -> None:
    process = running(f"trap 'echo no' INT; trap '' TERM; echo ready; {WAIT}")
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert process.stdout.readline() == "no\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGKILL
    assert "killed by SIGKILL" in err


def test_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    command = [*PYSUP, "run", "--quiet", "--", "/bin/sh", "-c", "echo ready; read line; echo $line"]
    process = subprocess.Popen(
        command,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate("still here\n", timeout=PATIENCE)
    assert (process.returncode, out) == (0, "still here\n")


@pytest.mark.parametrize("timeout", ["100ms", "0.1", "0.1s"])
def test_timeout_terminates(timeout: str) -> None:
    result = sh(WAIT, "--timeout", timeout, "--json")
    assert result.returncode == 124
    report = summary(result)
    assert (report["status"], report["timed_out"], report["signo"]) == (124, True, signal.SIGTERM)


@pytest.mark.kernel
def test_timeout_kills_what_does_not_terminate() -> None:
    began = time.monotonic()
    result = sh(f"trap '' TERM; {WAIT}", "--timeout", "1s")
    assert result.returncode == 124
    assert time.monotonic() - began > 3
    assert "timed out: killed by SIGKILL" in result.stderr


def test_timeout_that_is_not_needed() -> None:
    assert sh("exit 4", "--timeout", "1h").returncode == 4


# --- run: limits -----------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_memory_limit_and_its_cause() -> None:
    need("memory_limit")
    need("oom")
    hog = "held = []\nwhile True: held.append(b'x' * 2**20)"
    result = run("--memory", "48M", "--json", "--", sys.executable, "-I", "-S", "-c", hog)
    assert result.returncode == 137
    report = summary(result)
    assert (report["cause"], report["signo"]) == ("oom_killed", 9)
    assert 2**20 < report["domain_max_memory_usage_bytes"] <= 48 * 2**20
    result = run("--memory", "48M", "--", sys.executable, "-I", "-S", "-c", hog)
    assert "killed by SIGKILL, out of memory" in result.stderr


@pytest.mark.kernel
def test_cpu_limit() -> None:
    need("cpu_limit")
    report = summary(sh("while :; do :; done", "--cpu", "0.2", "--timeout", "2s", "--json"))
    assert 0 < report["domain_cpu_run_ns"] < 0.5 * report["wall_ns"]


def test_limit_that_cannot_be_had() -> None:
    with pysup.LocalSupervisor() as supervisor:
        reasons = {each.need: each.reason for each in supervisor.providers() if each.choice == "none"}
    for name, option, value in (("cpu_limit", "--cpu", "0.5"), ("memory_limit", "--memory", "64M")):
        if name in reasons:
            assert_fails(run(option, value, "--", "true"), 125, option, reasons[name])
    if not reasons:
        pytest.skip("this machine has all limits")


# --- doctor and demo -------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_doctor() -> None:
    result = pysup_("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"pysup {pysup.__version__}, ")
    assert os.uname().release in result.stdout
    with pysup.LocalSupervisor() as supervisor:
        for each in supervisor.providers():
            assert f"\n  {each.need} " in result.stdout
    assert "freeze one sleeping process" in result.stdout
    assert "\033" not in result.stdout


def test_doctor_json() -> None:
    result = pysup_("doctor", "--json")
    assert (result.returncode, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    report = json.loads(result.stdout)
    assert report["version"] == pysup.__version__
    with pysup.LocalSupervisor() as supervisor:
        expected = [each._asdict() for each in supervisor.providers()]
    assert report["providers"] == expected
    assert report["unmeasured"] == {}
    assert set(report["times"]) == {"freeze", "thaw", "exec", "exec_to_event"}
    for time_ in report["times"].values():
        assert 0 < time_["median_ns"] <= time_["p99_ns"]


def assert_demo(result: Result) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    assert "While frozen, red did not count once." in result.stdout
    for number in range(1, 7):
        assert f"\n{number}. " in result.stdout
    assert "Left out" in result.stdout or "cause oom_killed" in result.stdout
    assert "\033" not in result.stdout


@pytest.mark.kernel
def test_demo() -> None:
    result = pysup_("demo", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert_demo(result)
    assert "█" in result.stdout


def test_demo_in_ascii() -> None:
    result = pysup_("demo", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert_demo(result)
    assert result.stdout.isascii()
    assert "\\x" not in result.stdout
    assert "###" in result.stdout


def test_ctrl_c_ends_the_demo() -> None:
    process = subprocess.Popen(
        [*PYSUP, "demo"],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + signal.SIGINT, "pysup: interrupted\n")


@BUFFERING
def test_full_disk_is_said_in_one_line(unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        result = pysup_("doctor", env=environment, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (125, "pysup: No space left on device\n")


NOBODY: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}


@pytest.fixture
def nobody() -> dict[str, Any]:
    """Options of subprocess.run for a user without any rights."""
    probe = [sys.executable, "-c", "import pysup"]
    try:
        result = subprocess.run(probe, cwd="/", capture_output=True, timeout=PATIENCE, **NOBODY)
    except PermissionError:
        pytest.skip("the interpreter cannot be executed by other users")
    if result.returncode:
        pytest.skip("the package cannot be read by other users")
    return NOBODY


@pytest.mark.kernel
@pytest.mark.root
def test_without_rights(nobody: dict[str, Any]) -> None:
    result = sh("id -u; exit 3", "--json", **nobody)
    assert (result.returncode, result.stdout) == (3, "65534\n")
    assert summary(result)["domain_run_ns"] > 0
    assert_demo(pysup_("demo", **nobody))
    result = pysup_("doctor", "--json", **nobody)
    assert (result.returncode, result.stderr) == (0, "")
    missing = {
        each["need"]: each["reason"] for each in json.loads(result.stdout)["providers"] if each["choice"] == "none"
    }
    assert all(missing.values())
    if "memory_limit" in missing:
        assert_fails(run("--memory", "64M", "--", "true", **nobody), 125, "--memory")
    assert_fails(run("--user", "0", "--", "true", **nobody), 125, "--user")


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_example(example: pathlib.Path) -> None:
    result = subprocess.run([sys.executable, example], cwd="/", capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) >= 3


def test_example_of_the_readme() -> None:
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("no README.md beside these tests")
    code = readme.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    result = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (0, "")
    assert "exited 3" in result.stdout
