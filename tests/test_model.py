"""The data model, its errors and the interfaces: what the golden data does not reach."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import math
import pickle
import signal
import types
import typing
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysup import api, errors, model
from pysup.errors import SerdeError, SupervisorError
from pysup.model import Event, EventData, ExecRequest, KillRequest, Timestamp

UTC = timezone.utc
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)
MESSAGES = [
    each
    for each in map(model.__dict__.__getitem__, model.__all__)
    if isinstance(each, type) and issubclass(each, model.Message) and each is not model.Message
]

# --- Any message of any type, by its annotations ----------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.builds(
    Timestamp.of, st.datetimes(timezones=st.just(UTC) | ZONES, allow_imaginary=False), st.integers(0, 999)
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = args[1]
        return st.integers(limits[0], limits[-1])
    if origin is list:
        return st.lists(values(args[0]), max_size=3)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(arg) for arg in args])
    if origin is not None:
        return st.dictionaries(TEXT, values(args[1]), max_size=3)
    if hint is type(None):
        return st.none()
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    if issubclass(hint, model.Message):
        return messages(hint)
    by_type = {str: TEXT, float: st.floats(allow_nan=False, allow_infinity=False), datetime: TIMES}
    return typing.cast("st.SearchStrategy[Any]", by_type[hint])


def messages(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    sent = [each.name for each in dataclasses.fields(cls) if "local" not in each.metadata]
    return st.builds(cls, **{name: values(hints[name]) for name in sent})


EVERY = {cls: messages(cls) for cls in MESSAGES}
ANY_MESSAGE = st.one_of(list(EVERY.values()))
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.datetimes()
    | st.sampled_from([10**400, -(10**400), "\ud800", object(), EventData(), (), {1: 2}, {"type": "drive"}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("cls", MESSAGES)
def test_round_trip(cls: type[Any]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(EVERY[cls])
    def check(message: Any) -> None:
        assert cls.from_json(message.to_json()) == message
        assert cls.from_json(message.to_json().decode()) == message
        assert cls.from_dict(message.to_dict()) == message
        assert json.loads(message.to_json()) == message.to_dict()
        assert pickle.loads(pickle.dumps(message)) == message == copy.deepcopy(message)
        assert repr(message) == repr(copy.copy(message))

    check()


@settings(max_examples=600, deadline=None)
@given(ANY_MESSAGE, st.data())
def test_damaged_text_is_only_ever_a_serde_error(message: Any, data: st.DataObject) -> None:
    text = bytearray(message.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 3))
        text[at : at + gone] = data.draw(st.binary(max_size=3) | st.sampled_from([b"null", b"[", b"-1", b'"']))
    complaint(lambda: type(message).from_json(bytes(text)).to_json())


@settings(max_examples=600, deadline=None)
@given(ANY_MESSAGE, JUNK, st.data())
def test_damaged_fields_are_only_ever_a_serde_error(message: Any, junk: Any, data: st.DataObject) -> None:
    cls = type(message)
    form = message.to_dict()
    name = data.draw(st.sampled_from(dataclasses.fields(cls))).name
    form[name] = junk
    complaint(lambda: cls.from_dict(form).to_json())
    complaint(lambda: cls.from_dict(junk).to_json())
    setattr(message, name, junk)
    told = complaint(message.to_json)
    assert told is None or name in told or cls is model.ProcessTermination


def complaint(call: Callable[[], object]) -> str | None:
    """What the SerdeError says that `call` raises, if it does."""
    try:
        call()
    except SerdeError as error:
        return str(error)
    return None


# --- What fits and what does not, and how it is told -----------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "text", "message"),
    [
        (Event, '{"event":{"signo":"x"}}', 'event.signo: expected an integer, got "x"'),
        (Event, '{"event":{"signo":true}}', "event.signo: expected an integer, got true"),
        (Event, '{"event":{"signo":1.0}}', "event.signo: expected an integer, got 1.0"),
        (Event, '{"event":[]}', "event: expected an object, got an array"),
        (Event, '{"timestamp_millis":-1}', "timestamp_millis: -1 is not in 0..18446744073709551615"),
        (Event, '{"event":{"type":5}}', "event.type: expected a string, got 5"),
        (Event, "[]", "Event: expected an object, got an array"),
        (
            model.FreezeResponse,
            '{"cycle_delta_metrics":{"microvm_network_interfaces":{"e.0":{"received_bytes":"1"}}}}',
            'cycle_delta_metrics.microvm_network_interfaces["e.0"].received_bytes: expected an integer, got "1"',
        ),
        (
            model.ConfigureRequest,
            '{"mounts":[{"type":"bind"},{"type":"drive","chowner":[0,4294967296]}]}',
            "mounts[1].chowner[1]: 4294967296 is not in 0..4294967295",
        ),
        (
            model.ConfigureRequest,
            '{"mounts":[{"type":"tmpfs"}]}',
            'mounts[0].type: expected "drive" or "bind", got "tmpfs"',
        ),
        (model.ConfigureRequest, '{"mounts":[{}]}', 'mounts[0].type: expected "drive" or "bind", got null'),
        (
            model.ConfigureRequest,
            '{"mounts":[null]}',
            "mounts[0]: expected DriveMount or BindMount, got null",
        ),
        (model.BindMount, '{"type":"drive"}', 'type: expected "bind", got "drive"'),
        (KillRequest, '{"deadline":5}', "deadline: expected a time, got 5"),
        (KillRequest, '{"deadline":"tomorrow"}', 'deadline: "tomorrow": not an RFC 3339 time'),
        (SupervisorError, '{"error_kind":1}', "error_kind: expected a string, got 1"),
        (SupervisorError, '{"message":{}}', "message: expected a string, got an object"),
        (SupervisorError, "7", "SupervisorError: expected an object, got 7"),
    ],
)
def test_decoding_names_the_field(cls: Any, text: str, message: str) -> None:
    with pytest.raises(SerdeError) as caught:
        cls.from_json(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExecRequest(domain="d", name="n", path=typing.cast(str, None)), "path: expected a string, got null"),
        (ExecRequest(domain="d", name="n", path="/\udcff"), 'path: "/\\udcff" is not Unicode text'),
        (ExecRequest(domain="d", name="n", path="p", args=typing.cast(Any, "ls")), "args: expected an array"),
        (
            ExecRequest(domain="d", name="n", path="p", env=typing.cast(Any, {1: "x"})),
            "env[1]: expected a st",
        ),
        (ExecRequest(domain="d", name="n", path="p", env={"\ud800": ""}), 'env["\\ud800"]: "\\ud800" is not'),
        (EventData(signo=2**31), "signo: 2147483648 is not in -2147483648..2147483647"),
        (EventData(signo=10**5000), "signo: an integer of 16610 bits is not in"),
        (EventData(size=True), "size: expected an integer, got true"),
        (EventData(size=typing.cast(Any, 1.0)), "size: expected an integer, got 1.0"),
        (Event(event=typing.cast(Any, {})), "event: expected EventData, got an object"),
        (model.CgroupProfiles(model.CgroupProfileConfig(math.nan)), "throttled.cpu_limit: expected a finite"),
        (model.CgroupProfileConfig(10**400), "cpu_limit: expected a finite number, got an integer of"),
        (model.CgroupProfileConfig(True), "cpu_limit: expected a number, got true"),
        (KillRequest(domain="d", name="n", deadline=datetime(2024, 1, 1)), "deadline: a naive datetime"),
        (KillRequest(domain="d", name="n", deadline=Timestamp(2024, 1, 1)), "deadline: a naive datetime"),
        (model.StopRequest("d", typing.cast(Any, "2024-01-01T00:00:00Z")), "deadline: expected a datetime"),
        (model.ConfigureRequest("d", [typing.cast(Any, 3)]), "mounts[0]: expected DriveMount or BindMount"),
    ],
)
def test_encoding_names_the_field(request_: Any, message: str) -> None:
    with pytest.raises(SerdeError) as caught:
        request_.to_json()
    assert (caught.value.message or "").startswith(message)


def test_values_that_are_as_good_as_the_plain_ones() -> None:
    class Name(str):
        pass

    class Mapped(dict[str, str]):
        pass

    request = ExecRequest(
        domain=Name("d"), name="n", path="/p", args=typing.cast(Any, ("a", Name("b"))), env=Mapped(A="1")
    )
    form = request.to_dict()
    assert [type(form["domain"]), type(form["args"]), type(form["args"][1]), type(form["env"])] == [
        str,
        list,
        str,
        dict,
    ]
    signo = EventData(signo=signal.SIGKILL).to_dict()["signo"]
    assert type(signo) is int
    assert signo == 9
    assert model.CgroupProfileConfig(cpu_limit=2).to_json() == b'{"cpu_limit":2.0,"memory_limit_bytes":0}'
    for text in (bytearray(b"{}"), memoryview(b"{}")):
        assert Event.from_json(typing.cast(bytes, text)) == Event()


@pytest.mark.parametrize("text", ["", "{", "{}x", "nul", "[" * 100_000, '{"a":"\ud800"}', b"\xff", None, 5])
def test_text_that_is_not_json(text: Any) -> None:
    for cls in (Event, SupervisorError):
        with pytest.raises(SerdeError, match=r"^serde: not JSON: "):
            cls.from_json(text)


def test_null_in_containers_is_the_zero_value() -> None:
    request = ExecRequest.from_json('{"args":["a",null],"env":{"A":null},"log_config":null,"cwd":null}')
    assert request.args == ["a", ""]
    assert request.env == {"A": ""}
    assert request.log_config == model.Logging()
    assert request.cwd is None
    assert KillRequest.from_json("{}").deadline == Timestamp(1, 1, 1, tzinfo=UTC)
    assert ExecRequest.from_dict(None) == ExecRequest(domain="", name="", path="")


def test_what_stays_off_the_wire() -> None:
    with open("/dev/null") as file:
        request = ExecRequest(domain="d", name="n", path="/p", stdin=file, stdout=file, extra_files=[file])
        assert request.to_dict().keys() == {"name", "domain", "path", "log_config"}
    assert ExecRequest.from_dict({"stdin": 1, "stdout": 2, "extra_files": [3]}).stdin is None


def test_known_strings_are_members_and_others_stay() -> None:
    decoded = model.ManagedLogging.from_json('{"topic":"runtime","formats":["line","xml"]}')
    assert decoded.topic is model.ManagedLoggingTopic.RUNTIME
    assert decoded.formats is not None
    assert decoded.formats[0] is model.ManagedLoggingFormat.LINE
    assert type(decoded.formats[1]) is str
    name: Any = model.CgroupProfileName.THROTTLED
    assert str(name) == f"{name}" == "%s" % name == name == "throttled"  # noqa: UP031
    assert {name: 1}["throttled"] == 1


def test_messages_are_slotted_mutable_and_compare_by_value() -> None:
    for cls in MESSAGES:
        message = cls.from_dict({})
        assert not hasattr(message, "__dict__")
        assert message == cls.from_dict(None)
        assert message != cls
        with pytest.raises(TypeError, match="unhashable"):
            hash(message)
    assert model.StartRequest("d") != model.FreezeRequest("d")
    assert dataclasses.replace(EventData(), size=3) == EventData(size=3)
    assert repr(model.ExecUser(uid=1)) == "ExecUser(uid=1, gid=None)"


def test_no_default_is_shared() -> None:
    one, other = Event(), Event()
    one.event.type = "x"
    assert other.event.type == ""
    assert Event.from_dict({}).event is not Event.from_dict({}).event


def test_subclasses_decode_to_themselves() -> None:
    class Mine(EventData):
        __slots__ = ()

    assert type(Mine.from_json('{"size":1}')) is Mine
    assert Event(event=Mine(size=1)).to_dict()["event"]["size"] == 1


# --- Timestamp -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(TIMES)
def test_timestamp_survives(time: Timestamp) -> None:
    again = Timestamp.from_rfc3339(time.to_rfc3339())
    assert again == time
    assert (again.nanosecond, again.utcoffset()) == (time.nanosecond, time.utcoffset())
    assert Timestamp.of(time) == pickle.loads(pickle.dumps(time)) == copy.deepcopy(time) == time
    assert hash(Timestamp.of(time)) == hash(time)
    assert eval(repr(time), {"Timestamp": Timestamp, "datetime": __import__("datetime")}) == time


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1))
def test_unix_ns_is_exact(unix_ns: int) -> None:
    assert Timestamp.from_unix_ns(unix_ns).unix_ns == unix_ns


def test_timestamp_orders_by_nanosecond() -> None:
    plain = NOON
    zero, one, two = (Timestamp.of(plain, ns) for ns in range(3))
    assert zero == plain
    assert plain == zero
    assert hash(zero) == hash(plain)
    assert one != plain
    assert plain != one
    assert plain < one < two
    assert two > one > plain
    assert plain <= zero <= one
    assert one >= zero >= plain
    assert not one <= plain
    assert not plain >= one
    assert one == one.astimezone(timezone(timedelta(hours=-8)))
    assert one < plain + timedelta(microseconds=1)
    assert sorted([two, plain, one]) == [plain, one, two]
    assert one != "x"
    assert one != datetime(2024, 5, 6, 12)
    with pytest.raises(TypeError):
        _ = one < datetime(2024, 5, 6, 12)
    with pytest.raises(TypeError):
        _ = one < 5


def test_timestamp_keeps_its_nanosecond() -> None:
    time = Timestamp.of(NOON, 7)
    second = timedelta(seconds=1)
    for moved in (time + second, second + time, time - second, time.replace(second=1), time.astimezone()):
        assert type(moved) is Timestamp
        assert moved.nanosecond == 7
    assert time.replace(microsecond=1).nanosecond == 0
    assert time.replace(nanosecond=8).nanosecond == 8
    assert time - NOON == NOON - time == timedelta(0)
    assert type(time - NOON) is timedelta
    with pytest.raises(TypeError):
        _ = time + typing.cast(Any, 1)
    for bad in (-1, 1000):
        with pytest.raises(ValueError, match="nanosecond"):
            Timestamp(2024, 1, 1, nanosecond=bad)
        with pytest.raises(ValueError, match="nanosecond"):
            time.replace(nanosecond=bad)
    with pytest.raises(ValueError, match="naive"):
        Timestamp.of(datetime(2024, 1, 1))
    with pytest.raises(ValueError, match="naive"):
        Timestamp(2024, 1, 1).to_rfc3339()
    with pytest.raises(AttributeError):
        time.nanosecond = 1  # type: ignore[misc]


def test_timestamp_keeps_its_fold() -> None:
    class Zone(tzinfo):
        """One that repeats an hour, as at the end of summer."""

        def utcoffset(self, time: datetime | None) -> timedelta:
            return timedelta(hours=-5 if time is None or time.fold else -4)

        def dst(self, time: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, time: datetime | None) -> str:
            return "zone"

    time = Timestamp(2024, 11, 3, 1, 30, tzinfo=Zone(), fold=1, nanosecond=9)
    assert time.to_rfc3339() == "2024-11-03T01:30:00.000000009-05:00"
    for same in (
        copy.deepcopy(time),
        Timestamp.of(time),
        time.replace(second=0),
        time.replace(tzinfo=Zone()),
    ):
        assert same.to_rfc3339() == time.to_rfc3339()
    assert time.replace(fold=0).to_rfc3339() == "2024-11-03T01:30:00.000000009-04:00"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2024-05-06T07:08:09.1234567899999Z", "2024-05-06T07:08:09.123456789Z"),
        ("2024-05-06T07:08:09.5-00:00", "2024-05-06T07:08:09.5Z"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00+23:59"),
    ],
)
def test_times_that_are_read(text: str, printed: str) -> None:
    assert Timestamp.from_rfc3339(text).to_rfc3339() == printed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-05-06",
        "2024-05-06 07:08:09Z",
        "2024-05-06t07:08:09Z",
        "2024-05-06T07:08:09z",
        "2024-05-06T07:08:09",
        "2024-05-06T07:08:09.Z",
        "2024-05-06T07:08:09,5Z",
        "2024-05-06T7:08:09Z",
        "2024-05-06T24:00:00Z",
        "2024-05-06T23:59:60Z",
        "2023-02-29T00:00:00Z",
        "2024-05-06T07:08:09+24:00",
        "2024-05-06T07:08:09+00:60",
        "2024-05-06T07:08:09+0530",
        "2024-05-06T07:08:09Z\n",
        "٢٠٢٤-05-06T07:08:09Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
    ],
)
def test_times_that_are_refused(text: str) -> None:
    with pytest.raises(SerdeError, match=r"^serde: deadline: "):
        KillRequest.from_dict({"deadline": text})


def test_deadlines_may_be_datetimes() -> None:
    request = KillRequest.from_dict({"deadline": NOON})
    assert type(request.deadline) is Timestamp
    assert request.to_json() == KillRequest(name="", domain="", deadline=NOON).to_json()
    with pytest.raises(SerdeError, match="deadline: a datetime: a naive datetime"):
        KillRequest.from_dict({"deadline": datetime(2024, 1, 1)})


# --- Errors ----------------------------------------------------------------------------------------------

KNOWN = [errors.NoSuchEntityError, errors.InvalidStateError, errors.SerdeError, errors.FailureError]


@pytest.mark.parametrize("cls", KNOWN)
def test_known_errors(cls: type[SupervisorError]) -> None:
    error = cls("why", errno=2, step="execve")
    assert isinstance(error, SupervisorError)
    assert str(error) == f"{error.kind}: why"
    assert error.error() == error.kind
    assert (error.errno, error.step) == (2, "execve")
    assert error.to_dict() == {"error_kind": error.kind, "message": "why"}
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is cls
        assert vars(again) == vars(error)
        assert repr(again) == repr(error)
    decoded = SupervisorError.from_json(error.to_json())
    assert type(decoded) is cls
    assert decoded.kind is errors.ErrorKind(error.kind)
    assert (decoded.message, decoded.errno, decoded.step) == ("why", None, None)
    assert str(cls()) == error.kind


def test_there_is_one_class_for_each_kind() -> None:
    kinds = [SupervisorError.from_dict({"error_kind": kind}).kind for kind in errors.ErrorKind]
    assert kinds == list(errors.ErrorKind)
    assert [type(SupervisorError.from_dict({"error_kind": kind})) for kind in errors.ErrorKind] == KNOWN


def test_unknown_errors() -> None:
    error = SupervisorError.from_json('{"error_kind":"odd","message":"m"}')
    assert type(error) is SupervisorError
    assert str(error) == "odd: m"
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    by_name = pickle.loads(pickle.dumps(SupervisorError(kind="odd", message="m")))
    assert vars(by_name) == vars(error)
    assert repr(error) == "SupervisorError(kind='odd', message='m')"


def test_every_error_can_be_reported() -> None:
    assert errors.FailureError("no \udcff\udcfe file é").to_dict()["message"] == "no \ufffd\ufffd file é"
    with pytest.raises(SerdeError, match="message: expected a string, got 5"):
        errors.FailureError(typing.cast(Any, 5)).to_json()


# --- Interfaces ------------------------------------------------------------------------------------------


def test_what_the_interfaces_ask_for() -> None:
    def calls(protocol: type[Any]) -> set[str]:
        return {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}

    container = {"start", "configure", "stop", "freeze", "thaw", "exit"}
    process = {"exec", "terminate", "kill", "events"}
    for prefix in ("", "Async"):
        assert calls(getattr(api, f"{prefix}ContainerSupervisor")) == container
        assert calls(getattr(api, f"{prefix}ProcessSupervisor")) == process
        assert calls(getattr(api, f"{prefix}SupervisorClient")) == container | process | {"ping"}
    duck = types.SimpleNamespace(**dict.fromkeys(process, print))
    assert isinstance(duck, api.ProcessSupervisor)
    assert not isinstance(duck, api.SupervisorClient)
