"""The constants of the Gateway, names of intents and events, and gateway URLs."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shardlib.cli.summary import _SUMMARIES
from shardlib.gateway import (
    COMPRESSIONS,
    EVENTS,
    CloseCode,
    Intents,
    Opcode,
    gateway_url,
    nearest_event,
)
from shardlib.testing.intents import DIRECT_EVENTS, GUILD_EVENTS


def test_close_codes_say_whether_to_reconnect_and_whether_the_session_ends() -> None:
    fatal = {code for code in CloseCode if not code.can_reconnect}
    assert fatal == {4004, 4010, 4011, 4012, 4013, 4014}
    assert {code for code in CloseCode if code.ends_session} == {4007, 4009}
    assert 4006 not in list(CloseCode)


def test_intents_are_the_documented_bits() -> None:
    documented = {*range(17), 20, 21, 24, 25}
    assert Intents.all() == sum(1 << bit for bit in documented)
    assert Intents.privileged() == (1 << 1) | (1 << 8) | (1 << 15)
    assert Intents.default() == Intents.all() - Intents.privileged()
    assert isinstance(Intents.default(), Intents)


def test_intents_are_read_by_name() -> None:
    assert Intents.parse("guilds, GUILD_MESSAGES") == Intents.GUILDS | Intents.GUILD_MESSAGES


@pytest.mark.parametrize("text", ["guilds,gilds", "gilds", "", "guilds,"])
def test_an_unknown_intent_is_named_with_those_known(text: str) -> None:
    with pytest.raises(ValueError, match="guild_messages") as caught:
        Intents.parse(text)
    assert repr(text.split(",")[-1]) in str(caught.value)


def test_opcodes_are_the_documented_ones() -> None:
    assert sorted(Opcode) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 31, 43]


def test_every_event_that_an_intent_brings_is_known() -> None:
    brought = {
        name for names in (*GUILD_EVENTS.values(), *DIRECT_EVENTS.values()) for name in names
    }
    assert brought <= EVENTS
    assert set(_SUMMARIES) <= EVENTS
    # Those that need no intent, and those that have an opcode instead of a name.
    assert {"READY", "RESUMED", "INTERACTION_CREATE", "GUILD_MEMBERS_CHUNK"} <= EVENTS
    assert {"RATE_LIMITED", "SOUNDBOARD_SOUNDS", "CHANNEL_INFO", "VOICE_SERVER_UPDATE"} <= EVENTS
    assert not {"HELLO", "RECONNECT", "INVALID_SESSION"} & EVENTS
    assert len(EVENTS) == 79


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MESAGE_CREATE", "MESSAGE_CREATE"),
        ("MESSAGE_CREATED", "MESSAGE_CREATE"),
        ("message create", "MESSAGE_CREATE"),
        ("Guild-Member-Add", "GUILD_MEMBER_ADD"),
        ("GUILD_MEMBERS_ADD", "GUILD_MEMBER_ADD"),
        ("RESUME", "RESUMED"),
        ("REACTION_ADD", "MESSAGE_REACTION_ADD"),
        ("HELLO", None),
        ("MY_OWN_EVENT", None),
        ("", None),
        ("MESSAGE_CREATE" * 100_000, None),
    ],
)
def test_a_misspelt_event_leads_to_the_one_that_was_meant(name: str, meant: str | None) -> None:
    assert nearest_event(name) == meant


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_a_documented_event_is_its_own_nearest(name: str) -> None:
    assert nearest_event(name) == nearest_event(name.lower()) == name


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_url_gets_version_encoding_and_transport_compression(compression: str | None) -> None:
    url = urlsplit(gateway_url("wss://gateway.discord.gg", 10, compression))
    expected = {"v": ["10"], "encoding": ["json"]}
    if compression in ("zlib-stream", "zstd-stream"):
        expected["compress"] = [compression]
    assert parse_qs(url.query) == expected
    assert (url.scheme, url.netloc, url.path) == ("wss", "gateway.discord.gg", "/")


def test_a_url_keeps_its_path_port_and_other_parameters() -> None:
    url = gateway_url("ws://[::1]:8080/a?x=1&v=6&compress=zlib-stream&y=&encoding=etf", 10, None)
    assert url == "ws://[::1]:8080/a?x=1&y=&v=10&encoding=json"


def test_completing_a_url_twice_changes_nothing() -> None:
    once = gateway_url("wss://example.org/?a=b%20c", 10, "zlib-stream")
    assert gateway_url(once, 10, "zlib-stream") == once


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://gateway.discord.gg", "ws://"),
        ("gateway.discord.gg", "ws://"),
        ("", "ws://"),
        ("wss://", "must name a host"),
        ("wss:///path", "must name a host"),
        ("wss://host:0", "port other than 0"),
        ("wss://host:port", "must be a URL"),
        ("wss://host:65536", "must be a URL"),
        ("wss://[::1", "must be a URL"),
        ("wss://host/#part", "fragment"),
        ("wss://host/#", "fragment"),
        ("wss://ho st", "whitespace"),
        ("wss://host\n", "whitespace"),
        ("wss://host/\x00", "whitespace"),
        ("wss://host/\u2028", "whitespace"),
    ],
)
def test_an_invalid_gateway_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gateway_url(url, 10, None)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="password") as caught:
        gateway_url("wss://me:secret@host/", 10, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"wss://host", 10, None), TypeError),
        ((None, 10, None), TypeError),
        (("wss://host", "10", None), TypeError),
        (("wss://host", True, None), TypeError),
        (("wss://host", 0, None), ValueError),
        (("wss://host", 10, "gzip"), ValueError),
    ],
)
def test_gateway_url_refuses_other_bad_arguments(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        gateway_url(*arguments)


def test_a_host_in_the_letters_of_its_language_goes_out_in_ascii() -> None:
    url = gateway_url("wss://b\u00fccher.example:81/", 10, None)
    assert url == "wss://xn--bcher-kva.example:81/?v=10&encoding=json"
