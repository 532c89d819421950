"""The data model against what the Go program prints and accepts.

tests/data/differences.json names where pysup differs on purpose. Every case listed there must really differ,
and every other case must agree.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pysup import errors, model

DATA = Path(__file__).parent / "data"


def load(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="ascii"))


DIFFERENCES = load("differences.json")
LISTED = {
    (file, kind, case)
    for entry in DIFFERENCES
    for file, by_type in entry["cases"].items()
    for kind, cases in by_type.items()
    for case in cases
}

# --- From a golden value to the object that it describes --------------------------------------------------

NESTED: dict[str, type[Any]] = {
    "capabilities": model.Capabilities,
    "cgroup_profiles": model.CgroupProfiles,
    "throttled": model.CgroupProfileConfig,
    "unthrottled": model.CgroupProfileConfig,
    "exec_user": model.ExecUser,
    "additional_start_hooks": model.Hook,
    "log_config": model.Logging,
    "managed": model.ManagedLogging,
    "event": model.EventData,
    "cycle_delta_metrics": model.CycleDeltaMetrics,
    "microvm_network_interfaces": model.MicrovmNetworkInterfaceMetrics,
}


def text(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["$utf8_hex"]).decode("utf-8", "surrogateescape")
    return value


def time(value: Any) -> datetime:
    if isinstance(value, str):
        return model.Timestamp.from_rfc3339(value)
    parts = value["$time"]
    zone = timezone(timedelta(seconds=parts["offset_seconds"]))
    return model.Timestamp.from_unix_ns(parts["unix_seconds"] * 10**9 + parts["nanoseconds"], zone)


def mount(value: Any) -> Any:
    if isinstance(value["type"], dict):
        return value["type"]["$invalid_mount_type"]  # a number instead of a mount
    fields = {key: plain(each) for key, each in value.items() if key != "type"}
    return {"drive": model.DriveMount, "bind": model.BindMount}[value["type"]](**fields)


def plain(value: Any) -> Any:
    """A value that holds no message."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "$utf8_hex" in value:
        return text(value)
    if "$float" in value:
        return float(value["$float"])
    if "$pointer_to_nil_map" in value:
        return None
    return mapping(value, plain)


def mapping(value: Any, convert: Any) -> dict[str, Any]:
    pairs = value["$map"] if "$map" in value else value.items()
    return {text(key): convert(each) for key, each in pairs}


def build(cls: type[Any], value: dict[str, Any]) -> Any:
    arguments: dict[str, Any] = {}
    for key, each in value.items():
        nested = NESTED.get(key)
        if key == "deadline":
            arguments[key] = time(each)
        elif key == "mounts":
            arguments[key] = each if each is None else [mount(item) for item in each]
        elif nested is None or each is None:
            arguments[key] = plain(each)
        elif isinstance(each, list):
            arguments[key] = [build(nested, item) for item in each]
        elif key == "microvm_network_interfaces":
            arguments[key] = mapping(each, lambda item, cls=nested: build(cls, item))
        else:
            arguments[key] = build(nested, each)
    if cls is errors.SupervisorError:
        return cls(arguments["error_kind"], arguments["message"])
    return cls(**arguments)


def construct(kind: str, value: Any) -> Any:
    if kind in ("Mount", "DriveMount", "BindMount"):
        return mount(value)
    return build(getattr(model, kind), value)


def encode(kind: str, value: Any) -> bytes | None:
    """What pysup prints, or None where it fails, perhaps to make the object: datetime has no year 10000."""
    try:
        built = construct(kind, value)
        if kind == "Mount":  # a union has no methods; it is written inside of a request
            return model.ConfigureRequest("d", [built]).to_json()
        printed = built.to_json()
    except (ValueError, errors.SerdeError):
        return None
    assert isinstance(printed, bytes)
    return printed


# --- Comparing --------------------------------------------------------------------------------------------


def same_json(ours: Any, theirs: Any) -> bool:
    """Whether two JSON values are one: integers exact, floats to the bit, keys in the same order."""
    if isinstance(ours, float) or isinstance(theirs, float):
        numbers = float(ours), float(theirs)
        return numbers[0] == numbers[1] and math.copysign(1, numbers[0]) == math.copysign(1, numbers[1])
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same_json(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same_json, ours, theirs))
    return type(ours) is type(theirs) and bool(ours == theirs)


def parse(printed: bytes | str) -> Any:
    return json.loads(printed, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


def same_object(ours: Any, golden: Any) -> bool:
    """Whether a decoded object is what a golden value describes, down to the types of its parts."""
    if isinstance(golden, dict):
        if isinstance(ours, dict):
            wanted = mapping(golden, lambda each: each)
            return ours.keys() == wanted.keys() and all(same_object(ours[key], wanted[key]) for key in ours)
        if isinstance(ours, errors.SupervisorError):
            return (ours.kind, ours.message) == (golden["error_kind"], golden["message"])
        return isinstance(ours, model.Message) and all(
            same_object(getattr(ours, key), each) for key, each in golden.items()
        )
    return type(ours) is type(golden) and bool(ours == golden)


def id_of(case: dict[str, Any]) -> str:
    return f"{case['type']}-{case['case']}"


# --- The cases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("encode.json"), ids=id_of)
def test_encode(case: dict[str, Any]) -> None:
    ours, theirs = encode(case["type"], case["value"]), case["json"]
    if ours is None or theirs is None:
        agrees = ours is theirs
    else:
        mounted = case["type"] == "Mount"
        agrees = same_json(parse(ours)["mounts"][0] if mounted else parse(ours), parse(theirs))
    assert agrees == (("encode", case["type"], case["case"]) not in LISTED), (ours, theirs)


@pytest.mark.parametrize("case", load("decode.json"), ids=id_of)
def test_decode(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["json_hex"]) if case["json"] is None else case["json"].encode()
    try:
        ours = getattr(model, case["type"]).from_json(data)
    except errors.SerdeError as error:
        ours = error
        agrees = not case["ok"]
    else:
        agrees = case["ok"] and same_object(ours, case["value"])
    assert agrees == (("decode", case["type"], case["case"]) not in LISTED), ours


@pytest.mark.parametrize("case", load("termination.json")["terminations"])
def test_termination(case: dict[str, Any]) -> None:
    check_termination(model.ProcessTermination(signo=case["signo"], exit_status=case["exit_status"]), case)


def check_termination(ours: model.ProcessTermination, golden: dict[str, Any]) -> None:
    assert (ours.signaled(), ours.exited()) == (golden["signaled"], golden["exited"])
    assert ours.success() is golden["success"]
    if golden["panics"]:
        with pytest.raises(ValueError, match="neither"):
            str(ours)
    else:
        assert str(ours) == golden["string"]


@pytest.mark.parametrize("case", load("termination.json")["events"], ids=lambda case: case["case"])
def test_event(case: dict[str, Any]) -> None:
    event = model.Event.from_json(case["json"]).event
    assert event.event_loss() == case["event_loss"]
    terminated, golden = event.process_terminated(), case["process_terminated"]
    if golden is None or terminated is None:
        assert terminated is golden
    else:
        assert (terminated.domain, terminated.name) == (golden["domain"], golden["name"])
        assert (terminated.signo, terminated.exit_status) == (golden["signo"], golden["exit_status"])
        check_termination(terminated, golden)


@pytest.mark.parametrize("case", load("termination.json")["supervisor_error_text"])
def test_error_text(case: dict[str, Any]) -> None:
    error = errors.SupervisorError.from_dict({key: case[key] for key in ("error_kind", "message")})
    assert error.error() == case["error_text"]


def test_listed_cases_exist_once_and_entries_are_complete() -> None:
    existing = {(file, case["type"], case["case"]) for file in ("encode", "decode") for case in load(f"{file}.json")}
    assert existing >= LISTED
    assert len(LISTED) == sum(
        len(cases) for entry in DIFFERENCES for by_type in entry["cases"].values() for cases in by_type.values()
    )
    assert all(entry.keys() == {"name", "reason", "cases"} and entry["reason"] for entry in DIFFERENCES)
