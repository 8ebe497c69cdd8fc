"""Payloads: encoding, decoding, checks before sending, and what each payload holds."""

from __future__ import annotations

import json
import platform
import string
from typing import Any

import pytest
import ujson
from hypothesis import given
from hypothesis import strategies as st

from shardlib import payloads
from shardlib.errors import UnreadableMessage
from shardlib.gateway import Intents
from shardlib.payloads import (
    JSONModule,
    check_payload,
    check_send,
    encode,
    read_dispatch_header,
)
from tests.support import TOKEN

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


class BytesJSON:
    """A module like orjson, whose dumps returns bytes."""

    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: object) -> bytes:
        return json.dumps(value).encode()


def decode(message: bytes, module: Any) -> payloads.Payload:
    """Decode a message as the reader does."""
    try:
        decoded = module.loads(message)
    except Exception:
        decoded = None
    return check_payload(message, decoded)


@pytest.mark.parametrize("module", [ujson, json, BytesJSON])
@given(op=st.integers(0, 50), d=json_values)
def test_an_encoded_payload_decodes_to_the_same_payload(
    module: JSONModule, op: int, d: object
) -> None:
    payload = {"op": op, "d": d}
    text = encode(payload, module)
    assert isinstance(text, str)
    assert decode(text.encode("utf-8", "surrogatepass"), module) == payload


@pytest.mark.parametrize(
    "text",
    [
        '{"op":0,"d":18446744073709552000000000}',
        '{"op":0,"d":-99999999999999999999}',
        '{"op":0,"d":"\\ud800"}',
        '{"op":0,"d":' + "1" * 400 + "}",
    ],
    ids=["big", "small", "surrogate", "huge"],
)
def test_json_that_ujson_refuses_is_read_by_the_standard_library(text: str) -> None:
    assert decode(text.encode(), ujson)["d"] == json.loads(text)["d"]


def test_if_a_json_module_raises_the_standard_library_decodes() -> None:
    class Failing:
        dumps = staticmethod(json.dumps)

        @staticmethod
        def loads(data: object) -> object:
            raise RuntimeError("a bug in there")

    assert decode(b'{"op":11}', Failing()) == {"op": 11}


@pytest.mark.parametrize("module", [ujson, json])
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b'{"op":0,"d":',
        b'{"op":0,"d":"\xff"}',
        b"\xff\xfe{\x00}\x00",
        b"[" * 100_000,
        b'{"op":0,"d":' + b"[" * 100_000,
        b"[]",
        b"null",
        b"5",
        b"{}",
        b'{"op":"0"}',
        b'{"op":true}',
        b'{"op":null}',
        b'{"op":0.0}',
    ],
    ids=lambda message: repr(message[:12]),
)
def test_a_message_that_is_no_payload_is_unreadable(message: Any, module: JSONModule) -> None:
    with pytest.raises(UnreadableMessage) as caught:
        decode(message, module)
    assert caught.value.text == (message if b"\xff" in message else message.decode())


@pytest.mark.parametrize("module", [ujson, json])
@given(message=st.binary() | (st.text() | json_values.map(json.dumps)).map(str.encode))
def test_any_message_decodes_to_a_payload_or_is_unreadable(
    module: JSONModule, message: bytes
) -> None:
    try:
        payload = decode(message, module)
    except UnreadableMessage:
        return
    assert type(payload["op"]) is int


names = st.text(string.ascii_uppercase + "_" + string.digits, max_size=20).map("A".__add__)


@given(name=names, sequence=st.integers(0, 10**18 - 1), d=json_values)
def test_read_dispatch_header_agrees_with_decoding(name: str, sequence: int, d: object) -> None:
    payload = {"t": name, "s": sequence, "op": 0, "d": d}
    text = json.dumps(payload, separators=(",", ":")).encode()
    assert read_dispatch_header(text) == (name, sequence)
    # A text that is cut off is left to decoding, unless it happens to end with a closing brace.
    for end in range(0, len(text), 7):
        assert read_dispatch_header(text[:end]) is None or text[end - 1 : end] == b"}"


@pytest.mark.parametrize(
    "text",
    [
        '{"op":0,"t":"READY","s":1,"d":{}}',
        '{"t":"READY","s":1,"op":0, "d":{}}',
        ' {"t":"READY","s":1,"op":0,"d":{}}',
        '{"t":"READY","s":null,"op":0,"d":{}}',
        '{"t":null,"s":null,"op":11,"d":null}',
        '{"t":"READY","s":1,"op":1,"d":{}}',
        '{"t":"READY","s":01,"op":0,"d":{}}',
        '{"t":"READY","s":-1,"op":0,"d":{}}',
        '{"t":"READY","s":1.5,"op":0,"d":{}}',
        '{"t":"READY","s":"1","op":0,"d":{}}',
        '{"t":"READY","s":١,"op":0,"d":{}}',  # noqa: RUF001
        '{"t":"","s":1,"op":0,"d":{}}',
        '{"t":"ready","s":1,"op":0,"d":{}}',
        '{"t":"RE\\"Y","s":1,"op":0,"d":{}}',
        '{"t":"READY","s":1,"op":0,"d":{"v":10',
        '{"t":"READY","s":1111111111111111111111,"op":0,"d":{}}',
        '[{"t":"READY","s":1,"op":0,"d":{}}]',
        "",
    ],
)
def test_read_dispatch_header_leaves_any_other_message_to_decoding(text: str) -> None:
    assert read_dispatch_header(text.encode()) is None


def test_a_payload_may_have_4096_bytes_and_no_more() -> None:
    frame = len('{"op":3,"d":""}')
    fits = '{"op":3,"d":"' + "é" * ((4096 - frame) // 2) + "x" * ((4096 - frame) % 2) + '"}'
    assert len(fits.encode()) == 4096
    assert check_send(fits)["op"] == 3
    with pytest.raises(ValueError, match="4097 bytes"):
        check_send(fits[:-1] + " }")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "not JSON"),
        ("{'op': 1}", "not JSON"),
        ('{"op":1,"d":NaN}', "NaN"),
        ('{"op":1,"d":-Infinity}', "Infinity"),
        ('{"op":1} x', "not JSON"),
        ("[" * 4000, "not JSON"),
        ("[]", "object"),
        ("1", "object"),
        ("{}", "opcode"),
        ('{"op":"1"}', "opcode"),
        ('{"op":true}', "opcode"),
        ('{"op":1,"d":"\ud800"}', "UTF-8"),
    ],
)
def test_check_send_refuses_an_invalid_payload_with_the_reason(data: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_send(data)


@pytest.mark.parametrize("data", [b'{"op":1}', {"op": 1}, None])
def test_check_send_refuses_a_payload_that_is_no_str(data: Any) -> None:
    with pytest.raises(TypeError, match=type(data).__name__):
        check_send(data)


def identify(**changes: Any) -> dict[str, Any]:
    arguments = {
        "token": TOKEN,
        "intents": Intents.GUILDS,
        "shard_id": 0,
        "shard_count": 1,
        "properties": payloads.default_properties(),
        "large_threshold": None,
        "compress": False,
    }
    return payloads.identify(**{**arguments, **changes})


def test_identify_names_the_operating_system_as_python_does() -> None:
    assert payloads.default_properties()["os"] == platform.system().lower()


def test_identify_has_the_documented_fields() -> None:
    payload = identify()
    assert payload["op"] == 2
    assert payload["d"] == {
        "token": TOKEN,
        "properties": payloads.default_properties(),
        "shard": [0, 1],
        "intents": 1,
    }
    assert payload["d"]["properties"]["browser"] == "shardlib"
    full = identify(large_threshold=250, compress=True, shard_id=3, shard_count=4)
    assert full["d"]["large_threshold"] == 250
    assert full["d"]["compress"] is True
    assert full["d"]["shard"] == [3, 4]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"token": None}, TypeError),
        ({"token": b"x"}, TypeError),
        ({"token": ""}, ValueError),
        ({"token": TOKEN + "\n"}, ValueError),
        ({"token": "Bot " + TOKEN}, ValueError),
        ({"token": TOKEN + "é"}, ValueError),
        ({"intents": -1}, ValueError),
        ({"intents": "513"}, TypeError),
        ({"intents": True}, TypeError),
        ({"shard_id": 1}, ValueError),
        ({"shard_id": -1}, ValueError),
        ({"shard_id": "0"}, TypeError),
        ({"shard_count": 0}, ValueError),
        ({"large_threshold": 49}, ValueError),
        ({"large_threshold": 251}, ValueError),
        ({"large_threshold": 50.0}, TypeError),
        ({"properties": []}, TypeError),
    ],
)
def test_identify_names_a_bad_argument_and_never_shows_the_token(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(changes))) as caught:
        identify(**changes)
    assert TOKEN not in str(caught.value)


def test_resume_and_heartbeat_have_the_documented_fields() -> None:
    assert payloads.resume(token=TOKEN, session_id="abc", sequence=7) == {
        "op": 6,
        "d": {"token": TOKEN, "session_id": "abc", "seq": 7},
    }
    assert json.loads(payloads.heartbeat(251)) == {"op": 1, "d": 251}
    assert json.loads(payloads.heartbeat(None)) == {"op": 1, "d": None}


def test_presence_update_has_the_documented_fields() -> None:
    activity = {"name": "Save the Oxford Comma", "type": 0}
    assert payloads.presence_update(
        status="idle", activities=[activity], since=91879201, afk=True
    ) == {
        "op": 3,
        "d": {"since": 91879201, "activities": [activity], "status": "idle", "afk": True},
    }


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"status": "away"}, ValueError),
        ({"status": None}, ValueError),
        ({"activities": {"name": "x", "type": 0}}, TypeError),
        ({"activities": "x"}, TypeError),
        ({"activities": ["x"]}, TypeError),
        ({"activities": [{"type": 0}]}, ValueError),
        ({"activities": [{"name": "x", "type": 6}]}, ValueError),
        ({"activities": [{"name": "x"}]}, TypeError),
        ({"since": 1.5}, TypeError),
        ({"since": -1}, ValueError),
        ({"afk": 1}, TypeError),
    ],
)
def test_a_bad_presence_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(arguments))):
        payloads.presence_update(**arguments)


def test_voice_state_update_has_the_documented_fields() -> None:
    assert payloads.voice_state_update(41771983423143937, "127121515262115840", self_mute=True) == {
        "op": 4,
        "d": {
            "guild_id": "41771983423143937",
            "channel_id": "127121515262115840",
            "self_mute": True,
            "self_deaf": False,
        },
    }
    assert payloads.voice_state_update(1, None)["d"]["channel_id"] is None


@pytest.mark.parametrize("value", ["", "x", "-1", -1, 1 << 64, "1 ", "²", "9" * 21])
def test_an_id_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="guild_id"):
        payloads.voice_state_update(value, None)


@pytest.mark.parametrize("value", [None, True, 1.0, b"1", [1]])
def test_an_id_that_is_neither_int_nor_str_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="guild_id"):
        payloads.voice_state_update(value, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"query": "", "limit": 0, "presences": False}),
        ({"query": "a", "limit": 100}, {"query": "a", "limit": 100, "presences": False}),
        ({"user_ids": 5}, {"user_ids": ["5"], "presences": False}),
        ({"user_ids": "5"}, {"user_ids": ["5"], "presences": False}),
        (
            {"user_ids": range(100), "presences": True, "nonce": "é" * 16},
            {"user_ids": [str(i) for i in range(100)], "presences": True, "nonce": "é" * 16},
        ),
    ],
)
def test_request_guild_members_has_the_documented_fields(
    arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    payload = payloads.request_guild_members(1, **arguments)
    assert payload == {"op": 8, "d": {"guild_id": "1", **expected}}


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ({"query": "", "user_ids": [1]}, ValueError, "not both"),
        ({"query": "a"}, ValueError, "limit"),
        ({"query": "a", "limit": 101}, ValueError, "limit"),
        ({"limit": -1}, ValueError, "limit"),
        ({"user_ids": [1], "limit": 1}, ValueError, "limit"),
        ({"query": 5}, TypeError, "query"),
        ({"user_ids": []}, ValueError, "user_ids"),
        ({"user_ids": range(101)}, ValueError, "101"),
        ({"user_ids": 1.5}, TypeError, "user_ids"),
        ({"nonce": "é" * 17}, ValueError, "nonce"),
        ({"nonce": 5}, TypeError, "nonce"),
        ({"presences": 1}, TypeError, "presences"),
    ],
)
def test_a_bad_request_for_guild_members_is_refused(
    arguments: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        payloads.request_guild_members(1, **arguments)


def test_request_soundboard_sounds_names_guilds_or_is_refused() -> None:
    assert payloads.request_soundboard_sounds([1, "2"]) == {
        "op": 31,
        "d": {"guild_ids": ["1", "2"]},
    }
    cases: list[tuple[Any, type[Exception]]] = [
        ([], ValueError),
        ("12", TypeError),
        (12, TypeError),
        (["x"], ValueError),
    ]
    for bad, error in cases:
        with pytest.raises(error, match="guild_ids"):
            payloads.request_soundboard_sounds(bad)


def test_request_channel_info_names_known_fields_or_is_refused() -> None:
    assert payloads.request_channel_info(1) == {
        "op": 43,
        "d": {"guild_id": "1", "fields": ["status", "voice_start_time"]},
    }
    for bad, error in (([], ValueError), ("status", TypeError), (["topic"], ValueError)):
        with pytest.raises(error, match="fields"):
            payloads.request_channel_info(1, bad)


@pytest.mark.parametrize("module", [ujson, json])
def test_every_built_payload_can_be_sent(module: JSONModule) -> None:
    for payload in (
        identify(intents=Intents.all()),
        payloads.presence_update(activities=[{"name": "ünï", "type": 3}]),
        payloads.voice_state_update(1, None),
        payloads.request_guild_members(1, user_ids=[2**63] * 100),
    ):
        assert check_send(encode(payload, module)) == payload
