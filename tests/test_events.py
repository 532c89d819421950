"""Events: bounded queues, losses in their place, streams for threads and for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import support
from support import KINDS, MODES, PATIENCE, mode_problem, soon, until

import pysup
from pysup.errors import FailureError
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    Event,
    EventsRequest,
    ExecRequest,
    FreezeRequest,
    StartRequest,
    StopRequest,
    ThawRequest,
)

pytestmark = pytest.mark.kernel


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
def small(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A supervisor with queues of four events, and a started domain."""
    with KINDS[request.param](queue_length=4) as supervisor:
        supervisor.start(StartRequest("d"))
        yield supervisor


NUMBERS = itertools.count()


def end(supervisor: Any, count: int, domain: str = "d") -> list[str]:
    """So many processes that have ended, one after the other; their names."""
    names = []
    for _ in range(count):
        name = f"p{next(NUMBERS)}"
        watch = supervisor.events(EventsRequest("d"))
        supervisor.exec(ExecRequest(name=name, domain=domain, path="/bin/true"))
        while watch.read(PATIENCE).event.name != name:
            pass
        watch.close()
        names.append(name)
    return names


def end_unseen(supervisor: Any, count: int) -> list[str]:
    """The same without a subscriber."""
    names = []
    for _ in range(count):
        name = f"p{next(NUMBERS)}"
        supervisor.exec(ExecRequest(name=name, domain="d", path="/bin/true"))
        process = getattr(supervisor, "_supervisor", supervisor)._domains["d"].processes[name]
        until(process.ended)
        names.append(name)
    return names


def all_of(stream: Any) -> list[str | int | None]:
    """What waits: the name of an end, the size of a loss."""
    found: list[str | int | None] = []
    while True:
        try:
            data = stream.read(0.02).event
        except TimeoutError:
            return found
        if data.type == "event_loss":
            assert (data.domain, data.name, data.cause) == ("d", None, None)
        found.append(data.size if data.type == "event_loss" else data.name)


# ---- loss ----


def test_a_loss_stands_where_the_gap_is(small: Any) -> None:
    slow, fast = small.events(EventsRequest("d")), small.events(EventsRequest("d"))
    names: list[str] = []
    for _ in range(10):
        new = end(small, 1)
        names += new
        assert all_of(fast) == new  # who reads in time misses nothing
    assert all_of(slow) == [*names[:4], 6]
    more = end(small, 2)
    assert all_of(slow) == more
    more = end(small, 5)
    assert slow.read(1).event.name == more[0]
    last = end(small, 1)
    assert all_of(slow) == [*more[1:4], 1, *last]
    assert all_of(slow) == []


def test_several_gaps_in_one_queue(small: Any) -> None:
    slow = small.events(EventsRequest("d"))
    first = end(small, 6)  # 4 and a gap of 2
    # One was taken, so one fits again, and the gap after it is one of its own.
    assert slow.read(1).event.name == first[0]
    second = end(small, 7)
    assert all_of(slow) == [*first[1:4], 2, second[0], 6]


def test_the_time_of_a_loss_is_that_of_the_first_lost(small: Any) -> None:
    slow = small.events(EventsRequest("d"))
    end(small, 4)
    time.sleep(0.05)
    before = time.time_ns() // 10**6
    end(small, 1)
    after = time.time_ns() // 10**6
    time.sleep(0.05)
    end(small, 3)
    events = [slow.read(1) for _ in range(5)]
    assert events[4].event.size == 4
    assert before - 1 <= events[4].timestamp_millis <= after + 1


@pytest.mark.parametrize("count", [1, 4, 5, 11])
def test_the_backlog_is_for_the_first_subscriber(small: Any, count: int) -> None:
    names = end_unseen(small, count)
    first, second = small.events(EventsRequest("d")), small.events(EventsRequest("d"))
    lost = [count - 4] if count > 4 else []
    assert all_of(first) == names[:4] + lost
    assert all_of(second) == []
    both = end(small, 1)
    assert all_of(first) == all_of(second) == both


def test_a_backlog_after_the_last_subscriber_has_gone(small: Any) -> None:
    stream = small.events(EventsRequest("d"))
    seen = end(small, 1)
    stream.close()
    unseen = end_unseen(small, 2)
    again = small.events(EventsRequest("d"))
    assert all_of(again) == unseen
    assert [stream.read(1).event.name] == seen  # what was queued can still be read
    with pytest.raises(EOFError):
        stream.read(1)


def test_a_backlog_of_a_domain_that_is_stopped_and_started(small: Any) -> None:
    small.exec(ExecRequest(name="p", domain="d", path="/bin/sleep", args=["600"]))
    small.stop(StopRequest("d", soon()))
    small.start(StartRequest("d"))
    stream = small.events(EventsRequest("d"))
    assert all_of(stream) == ["p"]


def test_many_subscribers_see_each_end_once() -> None:
    with pysup.LocalSupervisor() as supervisor:
        supervisor.start(StartRequest("d"))
        streams = [supervisor.events(EventsRequest("d")) for _ in range(50)]
        names = {f"p{number}" for number in range(30)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: supervisor.exec(ExecRequest(name=n, domain="d", path="/bin/true")), names))
        for stream in streams:
            assert {stream.read(PATIENCE).event.name for _ in names} == names
        for stream in streams:
            with pytest.raises(TimeoutError):
                stream.read(0)


def test_a_slow_reader_delays_nobody() -> None:
    """Not the supervisor and not another reader, whatever it leaves unread or holds."""
    with pysup.LocalSupervisor(queue_length=2) as supervisor:
        driver = Driver(supervisor)
        slow = [supervisor.events(EventsRequest("d")) for _ in range(20)]
        longest = 0.0
        for number in range(50):
            began = time.monotonic()
            driver.exec(f"p{number}", "/bin/true")
            assert driver.ended(f"p{number}") == ("exited", 0)
            longest = max(longest, time.monotonic() - began)
        print(f"longest from exec to the event beside 20 full queues: {longest * 1000:.1f} ms")
        for stream in slow:
            assert [stream.read(1).event.name for _ in range(2)] == ["p0", "p1"]
            assert stream.read(1).event.size == 48


def test_two_domains_do_not_mix() -> None:
    with pysup.LocalSupervisor() as supervisor:
        one, two = Driver(supervisor, "one"), Driver(supervisor, "two")
        one.sh("p", "exit 1")
        two.sh("p", "exit 2")
        assert one.ended("p") == ("exited", 1)
        assert two.ended("p") == ("exited", 2)
        one.quiet(0)
        two.quiet(0)


# ---- streams of threads ----


def test_close_wakes_who_reads() -> None:
    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(20):
                stream = supervisor.events(EventsRequest("d"))
                readers = [pool.submit(stream.read) for _ in range(3)]
                time.sleep(0.005)
                stream.close()
                stream.close()
                for reader in readers:
                    assert isinstance(reader.exception(PATIENCE), EOFError)
        driver.exec("p", "/bin/true")
        assert driver.ended("p") == ("exited", 0)


def test_exit_wakes_who_reads() -> None:
    supervisor = pysup.LocalSupervisor()
    driver = Driver(supervisor)
    driver.exec("p", "/bin/sleep", "600")
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(lambda: list(driver.stream))
        time.sleep(0.05)
        supervisor.exit()
        assert [event.event.signo for event in reader.result(PATIENCE)] == [9]


def test_several_readers_of_one_stream() -> None:
    """Each event goes to one of them."""
    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        found: list[str | None] = []

        def read() -> None:
            for event in driver.stream:
                found.append(event.event.name)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(60):
            driver.exec(f"p{number}", "/bin/true")
        until(lambda: len(found) >= 60)
        driver.stream.close()
        for reader in readers:
            reader.join(PATIENCE)
            assert not reader.is_alive()
        assert sorted(found, key=str) == sorted((f"p{number}" for number in range(60)), key=str)


def test_time_outs_end_when_they_say() -> None:
    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        driver.exec("busy", "/bin/sleep", "600")
        for timeout in (0, 0.01, 0.1):
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                driver.stream.read(timeout)
            took = time.monotonic() - began
            assert timeout <= took < timeout + PATIENCE / 10


def test_a_stream_as_a_descriptor() -> None:
    import select

    with pysup.LocalSupervisor() as supervisor:
        driver = Driver(supervisor)
        poll = select.poll()
        poll.register(driver.stream.fileno(), select.POLLIN)
        assert poll.poll(0) == []
        driver.exec("p", "/bin/true")
        assert poll.poll(PATIENCE * 1000)
        assert driver.ended("p") == ("exited", 0)
        with pytest.raises(TimeoutError):
            driver.stream.read(0)
        assert poll.poll(0) == []
        driver.stream.close()
        assert poll.poll(0)


# ---- streams of asyncio ----


def test_a_cancelled_read_loses_nothing() -> None:
    async def main() -> None:
        async with pysup.AsyncLocalSupervisor() as supervisor:
            await supervisor.start(StartRequest("d"))
            stream = await supervisor.events(EventsRequest("d"))
            names, found = [f"p{number}" for number in range(100)], []

            async def read() -> None:
                while len(found) < len(names):
                    reading = asyncio.ensure_future(stream.read())
                    await asyncio.sleep(0.0005 * (len(found) % 4))
                    reading.cancel()
                    try:
                        found.append((await reading).event.name)
                    except asyncio.CancelledError:
                        pass
                    try:
                        found.append((await stream.read(0.0001)).event.name)
                    except TimeoutError:
                        pass

            async def start() -> None:
                for name in names:
                    await supervisor.exec(ExecRequest(name=name, domain="d", path="/bin/true"))
                    await asyncio.sleep(0)

            await asyncio.wait_for(asyncio.gather(read(), start()), PATIENCE)
            assert sorted(found, key=str) == sorted(names)
            with pytest.raises(TimeoutError):
                await stream.read(0.01)

    asyncio.run(main())


def test_async_close_and_exit_wake_who_reads() -> None:
    async def main() -> None:
        supervisor = pysup.AsyncLocalSupervisor()
        await supervisor.start(StartRequest("d"))
        one = await supervisor.events(EventsRequest("d"))
        two = await supervisor.events(EventsRequest("d"))
        readers = [asyncio.ensure_future(stream.read()) for stream in (one, one, two)]
        await asyncio.sleep(0.01)
        one.close()
        done, waiting = await asyncio.wait(readers[:2], timeout=PATIENCE)
        assert not waiting
        assert all(isinstance(reader.exception(), EOFError) for reader in done)
        await supervisor.exit()
        done, waiting = await asyncio.wait(readers[2:], timeout=PATIENCE)
        assert not waiting
        assert all(isinstance(reader.exception(), EOFError) for reader in done)

    asyncio.run(main())


def test_a_cancelled_freeze_is_undone() -> None:
    """The domain is running or frozen, as its state says, and each call that this allows works."""

    async def main(mode: str) -> None:
        async with pysup.AsyncLocalSupervisor(cgroups=mode) as supervisor:
            await supervisor.start(StartRequest("d"))
            stream = await supervisor.events(EventsRequest("d"))
            for number in range(20):
                for child in range(3):
                    request = ExecRequest(
                        name=f"p{child}", domain="d", path="/bin/sh", args=["-c", "while :; do :; done"]
                    )
                    if number == 0:
                        await supervisor.exec(request)
                freeze = asyncio.ensure_future(supervisor.freeze(FreezeRequest("d")))
                await asyncio.sleep(0)
                freeze.cancel()
                try:
                    await freeze
                    await supervisor.thaw(ThawRequest("d"))
                except asyncio.CancelledError:
                    pass
                await supervisor.exec(ExecRequest(name=f"q{number}", domain="d", path="/bin/true"))
                assert (await stream.read(PATIENCE)).event.name == f"q{number}"
            await supervisor.stop(StopRequest("d", soon()))

    for mode in MODES:
        if not mode_problem(mode):
            asyncio.run(main(mode))


def test_cancelled_stops_and_kills_go_on() -> None:
    async def main(mode: str) -> None:
        async with pysup.AsyncLocalSupervisor(cgroups=mode) as supervisor:
            for _ in range(10):
                await supervisor.start(StartRequest("d"))
                for number in range(5):
                    await supervisor.exec(ExecRequest(name=f"p{number}", domain="d", path="/bin/sleep", args=["600"]))
                stop = asyncio.ensure_future(supervisor.stop(StopRequest("d", soon())))
                await asyncio.sleep(0)
                stop.cancel()
                try:
                    await stop
                except asyncio.CancelledError:
                    await supervisor.stop(StopRequest("d", soon()))

    for mode in MODES:
        if not mode_problem(mode):
            asyncio.run(main(mode))


# ---- what an event says ----


def test_timestamps(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        last = 0
        for number in range(20):
            before = time.time_ns() // 10**6
            driver.sh(f"p{number}", "exit 0")
            event = driver.event()
            after = time.time_ns() // 10**6
            assert before <= event.timestamp_millis <= after
            assert last <= event.timestamp_millis
            last = event.timestamp_millis


def test_the_time_is_that_of_the_death_and_not_of_the_reading(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        driver.exec("p", "/bin/true")
        until(supervisor._domains["d"].processes["p"].ended)
        after = time.time_ns() // 10**6
        time.sleep(0.1)
        assert driver.event().timestamp_millis <= after


def test_events_on_the_wire(mode: str) -> None:
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        driver = Driver(supervisor)
        driver.sh("e", "exit 3")
        first = driver.event()
        driver.sh("s", "kill -15 $$")
        second = driver.event()
    for event, data in (
        (first, {"cause": "exited", "domain": "d", "exit_status": 3, "name": "e", "type": "process_termination"}),
        (second, {"cause": "signaled", "domain": "d", "name": "s", "signo": 15, "type": "process_termination"}),
    ):
        wire = event.to_dict()
        assert Event.from_dict(wire) == event
        inner = next(value for value in wire.values() if isinstance(value, dict))
        assert {key: value for key, value in inner.items() if value is not None} == data


# ---- out of memory ----

EAT = "x=$(yes | head -c 200000000); echo never"


def limited(mode: str, megabytes: int) -> Any:
    supervisor = pysup.LocalSupervisor(cgroups=mode)
    profile = CgroupProfileConfig(0.0, megabytes << 20)
    try:
        supervisor.configure(
            ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile), start_profile="throttled")
        )
    except FailureError as error:
        supervisor.exit()
        pytest.skip(str(error))
    return supervisor


def test_out_of_memory(mode: str) -> None:
    with limited(mode, 32) as supervisor:
        driver = Driver(supervisor)
        driver.sh("sleeper", "echo -1000 > /proc/$$/oom_score_adj; exec sleep 600")  # not for the kernel to take
        driver.sh("victim", "kill -9 $$")
        assert driver.ended("victim") == ("signaled", 9)
        # The shell is the largest in it; before and after, who is killed by another is not confused with it.
        driver.sh("eater", EAT)
        assert driver.ended("eater") == ("oom_killed", 9)
        driver.sh("victim", "kill -9 $$")
        assert driver.ended("victim") == ("signaled", 9)
        driver.sh("again", EAT)
        assert driver.ended("again") == ("oom_killed", 9)
        driver.kill("sleeper")
        assert driver.ended("sleeper") == ("signaled", 9)


def test_a_child_out_of_memory_is_not_its_parent(mode: str) -> None:
    with limited(mode, 32) as supervisor:
        driver = Driver(supervisor)
        # The kernel may take the parent as well, while the child still holds its memory, unless it is told not to.
        child = f"echo 0 > /proc/self/oom_score_adj; {EAT}"
        driver.sh("parent", f"echo -1000 > /proc/$$/oom_score_adj; sh -c '{child}'; [ $? = 137 ] && exit 7")
        assert driver.ended("parent") == ("exited", 7)


def test_who_is_killed_after_another_was_out_of_memory(mode: str) -> None:
    """A descendant's lack of memory, of which there is no event, is not taken for the next death by SIGKILL."""
    with limited(mode, 32) as supervisor:
        driver = Driver(supervisor)
        driver.exec("sleeper", "/bin/sleep", "600")
        driver.sh("parent", f"sh -c '{EAT}'; [ $? = 137 ] && exit 7")
        assert driver.ended("parent") == ("exited", 7)
        for _ in range(3):
            driver.sh("victim", "kill -9 $$")
            assert driver.ended("victim") == ("signaled", 9)


def test_one_of_two_domains_out_of_memory(mode: str) -> None:
    with limited(mode, 32) as supervisor:
        driver, other = Driver(supervisor), Driver(supervisor, "other")
        other.sh("eater", "x=$(yes | head -c 50000000); exit 4")
        driver.sh("eater", EAT)
        assert driver.ended("eater") == ("oom_killed", 9)
        assert other.ended("eater") == ("exited", 4)


def test_a_read_without_patience(d: Driver) -> None:
    """What waits is had however short the time-out."""
    with pytest.raises(TimeoutError):
        d.stream.read(0)
    d.sh("p", "exit 0")

    def read() -> Event | None:
        try:
            event: Event = d.stream.read(0)
        except TimeoutError:
            return None
        return event

    assert until(read).event.name == "p"
