"""Names of events as users write them: accepted, warned of, or refused with a suggestion."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from typing import Any

import pytest

from shardlib import ShardError
from shardlib.gateway import EVENTS, event_name, misspelling_warning, nearest_event
from tests.shards import make_shard

REFUSED = [
    ("", "gateway-events#receive-events"),
    ("message", "did you mean MESSAGE_CREATE?"),
    ("on_message", "did you mean MESSAGE_CREATE?"),
    ("MESSAGE CREATE", "did you mean MESSAGE_CREATE?"),
    (" READY", "did you mean READY?"),
    ("READY\n", "did you mean READY?"),
    ("event_of_tomorrow", "gateway-events#receive-events"),
    ("\xc9" * 100_000, "gateway-events#receive-events"),
    ("HELLO", "on_socket_raw_message"),
    ("invalid_session", "on_socket_raw_message"),
]


@pytest.mark.parametrize("text", ["READY", "ready", "Ready", "EVENT_OF_TOMORROW", "V2"])
def test_an_event_is_named_in_upper_case(text: str) -> None:
    assert event_name(text) == text.upper()


@pytest.mark.parametrize(("text", "told"), REFUSED)
def test_a_name_that_no_event_can_have_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        event_name(text)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("message", "MESSAGE_CREATE"),
        ("on_message", "MESSAGE_CREATE"),
        ("on_ready", "READY"),
        ("guild", "GUILD_CREATE"),
        ("interaction", "INTERACTION_CREATE"),
        ("typing", "TYPING_START"),
        ("", None),
        ("HELLO", None),
    ],
)
def test_the_beginning_of_a_name_leads_to_the_shortest_event_with_it(
    name: str, meant: str | None
) -> None:
    assert nearest_event(name) == meant


@pytest.mark.parametrize("event", [*sorted(EVENTS), "EVENT_OF_TOMORROW"])
def test_a_known_event_or_one_like_no_other_causes_no_warning(event: str) -> None:
    assert misspelling_warning(event) is None


def test_on_and_wait_for_refuse_a_name_that_no_event_can_have() -> None:
    shard = make_shard()
    listen: Any
    for listen in (shard.on, lambda event: shard.on(event, print), shard.wait_for):
        for text, told in REFUSED:
            with pytest.raises(ValueError, match=re.escape(told)):
                listen(text)


def test_on_and_wait_for_warn_once_of_a_name_that_looks_misspelt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shard = make_shard()
    for _ in range(2):
        shard.on("MESAGE_CREATE", print)
    shard.on("EVENT_OF_TOMORROW", print)
    shard.on("MESSAGE_CREATE", print)
    with pytest.raises(ShardError, match="would wait for ever"):
        shard.wait_for("MESAGE_CREATE")
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.getMessage() == (
        "MESAGE_CREATE is no event that Discord documents, and perhaps never comes; "
        "did you mean MESSAGE_CREATE?"
    )


def tail(*events: str) -> subprocess.CompletedProcess[str]:
    """Run ``shardlib tail`` until the first READY."""
    arguments = ("tail", "--local", "--events", ",".join(events), "--count", "1")
    return subprocess.run(
        [sys.executable, "-m", "shardlib", *arguments], capture_output=True, text=True, timeout=30
    )


def test_tail_refuses_and_warns_of_event_names_as_a_shard_does() -> None:
    refused = tail("READY", "message")
    assert refused.returncode == 2
    assert "'message' is no event" in refused.stderr
    assert "did you mean MESSAGE_CREATE?" in refused.stderr
    warned = tail("READY", "MESAGE_CREATE", "EVENT_OF_TOMORROW")
    assert warned.returncode == 0
    assert "did you mean MESSAGE_CREATE?" in warned.stderr
    assert "EVENT_OF_TOMORROW" not in warned.stderr
