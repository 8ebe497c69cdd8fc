"""Session and CurrentSession: saving, loading, checking, and counting sequences."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import stat
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.currentsession import CurrentSession
from shardlib.session import Session

SESSION = Session("abc", 12, "wss://resume.example/", 1, 4)


@given(
    session_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    sequence=st.none() | st.integers(0, (1 << 63) - 1),
    url=st.none() | st.sampled_from(["wss://host", "ws://127.0.0.1:81/"]),
    shard=st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 40)).map(
        lambda pair: (pair[0], sum(pair))
    ),
)
def test_a_saved_session_is_loaded_unchanged(
    tmp_path_factory: pytest.TempPathFactory,
    session_id: str,
    sequence: int | None,
    url: str | None,
    shard: tuple[int, int],
) -> None:
    path = tmp_path_factory.getbasetemp() / "session.json"
    session = Session(session_id, sequence, url, *shard)
    session.save(path)
    assert Session.load(path) == session
    assert Session.from_dict(json.loads(json.dumps(session.to_dict()))) == session


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    SESSION.save(path)
    later = dataclasses.replace(SESSION, sequence=13)
    later.save(str(path))
    assert Session.load(str(path)) == later
    assert os.listdir(tmp_path) == ["session.json"]


def test_a_session_can_be_saved_to_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SESSION.save("session.json")
    assert Session.load("session.json") == SESSION


@pytest.mark.skipif(os.name != "posix", reason="the system has other permissions")
def test_only_the_owner_may_read_a_saved_session(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text("{}")
    path.chmod(0o644)
    previous = os.umask(0)
    try:
        SESSION.save(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_save_leaves_the_directory_unchanged(tmp_path: Path) -> None:
    target = tmp_path / "occupied"
    (target / "inside").mkdir(parents=True)  # a directory can't be replaced by a file
    with pytest.raises(OSError):
        SESSION.save(target)
    assert os.listdir(tmp_path) == ["occupied"]


def saved(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "session.json"
    SESSION.save(path)
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))
    return path


WRONG = pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "other"}, "Session.save"),
        ({"format": "gone"}, "Session.save"),
        ({"version": 2}, "version is 2"),
        ({"session_id": "gone"}, "session_id is missing"),
        ({"session_id": 5}, "session_id must be a str"),
        ({"session_id": ""}, "session_id must not be empty"),
        ({"sequence": "5"}, "sequence must be an int"),
        ({"sequence": True}, "sequence must be an int"),
        ({"sequence": -1}, "sequence must be from 0"),
        ({"sequence": 1 << 63}, "sequence must be from 0"),
        ({"shard_id": None}, "shard_id must be an int"),
        ({"shard_id": 4}, "4 of 4"),
        ({"shard_count": 0}, "1 of 0"),
        ({"resume_gateway_url": "https://elsewhere/"}, "ws://"),
        ({"resume_gateway_url": 5}, "resume_gateway_url"),
    ],
)


@WRONG
def test_a_damaged_session_file_is_refused_with_its_path_and_the_reason(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(ValueError, match=why) as caught:
        Session.load(path)
    assert str(path) in str(caught.value)


@WRONG
def test_from_dict_makes_the_checks_of_load(changes: dict[str, Any], why: str) -> None:
    content = {**SESSION.to_dict(), **changes}
    mapping = {key: value for key, value in content.items() if value != "gone"}
    with pytest.raises(ValueError, match=f"the mapping holds no usable session: .*{why}"):
        Session.from_dict(mapping)


def test_from_dict_ignores_other_keys_and_takes_any_mapping() -> None:
    mapping = types.MappingProxyType({**SESSION.to_dict(), "owner": "a worker"})
    assert Session.from_dict(mapping) == SESSION


def test_to_dict_returns_a_new_dict() -> None:
    SESSION.to_dict()["sequence"] = 99
    assert SESSION.to_dict()["sequence"] == 12


class Subdomains:
    """A container of all hosts under one."""

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and host.endswith(".example")


@pytest.mark.parametrize("url", ["wss://resume.example/", "wss://RESUME.example:444/?a=1"])
@pytest.mark.parametrize("hosts", [{"resume.example"}, ["resume.example"], Subdomains(), None])
def test_from_dict_takes_a_url_whose_host_is_allowed(url: str, hosts: Any) -> None:
    session = dataclasses.replace(SESSION, resume_gateway_url=url)
    assert Session.from_dict(session.to_dict(), resume_hosts=hosts) == session


@pytest.mark.parametrize(
    "url",
    [
        "wss://elsewhere.test/",
        "wss://resume.example.elsewhere.test/",
        "wss://elsewhere.test/?resume.example",
        "wss://resume.example./",
    ],
)
@pytest.mark.parametrize("hosts", [{"resume.example"}, Subdomains(), ()])
def test_from_dict_refuses_a_url_of_another_host(url: str, hosts: Any) -> None:
    """The shard would send the token there."""
    session = dataclasses.replace(SESSION, resume_gateway_url=url)
    with pytest.raises(ValueError, match="resume_hosts does not let the token go"):
        Session.from_dict(session.to_dict(), resume_hosts=hosts)


def test_load_refuses_a_url_of_another_host_and_takes_an_allowed_one(tmp_path: Path) -> None:
    """Whoever can write to the file could have the shard send the token elsewhere."""
    path = saved(tmp_path, resume_gateway_url="wss://elsewhere.test/")
    with pytest.raises(ValueError, match="session.json.*resume_hosts does not let the token go"):
        Session.load(path, resume_hosts={"resume.example"})
    assert Session.load(path, resume_hosts={"elsewhere.test"}) == Session.load(path)
    with pytest.raises(TypeError, match="resume_hosts must be a set of hosts, not str"):
        Session.load(path, resume_hosts="elsewhere.test")


def test_a_session_without_a_url_needs_no_allowed_host() -> None:
    session = dataclasses.replace(SESSION, resume_gateway_url=None)
    assert Session.from_dict(session.to_dict(), resume_hosts=()) == session


@pytest.mark.parametrize(
    ("mapping", "hosts", "why"),
    [
        ([], None, "mapping must be a mapping, not list"),
        ("{}", None, "mapping must be a mapping, not str"),
        (SESSION.to_dict(), "resume.example", "resume_hosts must be a set of hosts, not str"),
        (SESSION.to_dict(), 5, "resume_hosts must be a container or None, not int"),
    ],
)
def test_from_dict_refuses_arguments_of_another_type(mapping: Any, hosts: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Session.from_dict(mapping, resume_hosts=hosts)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 100_000], ids=range(6)
)
def test_a_file_that_holds_no_session_is_refused_with_its_path(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no usable session") as caught:
        Session.load(path)
    assert str(path) in str(caught.value)


def test_loading_a_missing_file_raises_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Session.load(tmp_path / "none")


@given(st.binary())
def test_loading_any_other_bytes_raises_value_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="any.json"):
        Session.load(path)


@pytest.mark.parametrize(
    "last, sequence, after",
    [
        (4, 5, 5),
        (4, 5.0, None),
        (4, 4, None),
        (4, 6, None),
        (4, 3, None),
        (4, None, None),
        (4, "5", None),
        (None, 1, None),
        (0, True, None),
    ],
)
def test_receive_next_takes_only_the_next_sequence(
    last: int | None, sequence: object, after: int | None
) -> None:
    session = CurrentSession("abc", None, last, last)
    assert session.receive_next(sequence) is (after is not None)
    assert session.last_sequence == (last if after is None else after)
    assert session.last_sequence is None or type(session.last_sequence) is int


def test_a_session_is_immutable() -> None:
    with pytest.raises(AttributeError):
        SESSION.sequence = 5  # type: ignore[misc]


def test_replace_checks_the_values_of_a_session() -> None:
    assert dataclasses.replace(SESSION, shard_id=2) == Session(
        "abc", 12, "wss://resume.example/", 2, 4
    )
    with pytest.raises(ValueError, match="shard_id must be less than shard_count"):
        dataclasses.replace(SESSION, shard_id=4)


def test_a_session_shows_its_values_and_equals_its_copies() -> None:
    assert repr(SESSION) == (
        "Session(session_id='abc', sequence=12, resume_gateway_url='wss://resume.example/', "
        "shard_id=1, shard_count=4)"
    )
    for copied in (copy.copy(SESSION), copy.deepcopy(SESSION), pickle.loads(pickle.dumps(SESSION))):
        assert type(copied) is Session
        assert copied == SESSION
        assert hash(copied) == hash(SESSION)
