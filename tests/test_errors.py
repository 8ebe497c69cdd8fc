"""The errors: what their messages say, what they keep, and what they never show."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from shardlib import errors
from shardlib.errors import (
    DisallowedIntents,
    SendTimeout,
    SessionLimitReached,
    ShardClosed,
    ShardError,
    ShardingRequired,
    ShardsFailed,
    UnreadableMessage,
    fatal_error,
)
from shardlib.gateway import CloseCode, Intents
from tests.support import FATAL


@pytest.mark.parametrize("code", [*CloseCode, 1000, 1001, 1006, 3000, 4006, 4999])
def test_only_fatal_close_codes_have_an_error_of_their_own(code: int) -> None:
    error = fatal_error(code, "because", Intents.default())
    if code not in FATAL:
        assert error is None
        return
    assert type(error) is FATAL[code]
    assert isinstance(error, ShardClosed)
    assert (error.code, error.reason) == (code, "because")


@pytest.mark.parametrize("code", FATAL)
def test_a_fatal_error_says_what_happened_and_what_to_do(code: int) -> None:
    text = str(fatal_error(code, "the gateway's words", Intents.default()))
    assert str(code) in text
    assert "the gateway's words" in text
    assert len(text) > 100


def test_disallowed_intents_are_named_with_the_place_to_allow_them() -> None:
    asked = Intents.GUILDS | Intents.GUILD_MEMBERS | Intents.MESSAGE_CONTENT
    text = str(fatal_error(4014, "", asked))
    assert "GUILD_MEMBERS, MESSAGE_CONTENT" in text
    assert "GUILD_PRESENCES" not in text
    assert "https://discord.com/developers/applications" in text
    assert "privileged intents, and" in str(DisallowedIntents(4014))


def test_shard_closed_shows_its_reason_with_and_without_a_code() -> None:
    assert str(ShardClosed(None, "the budget is used up")) == "the budget is used up"
    assert str(ShardClosed(None)) == "the shard is closed"
    assert str(ShardClosed(1000, "bye")) == "the Gateway closed the connection with code 1000 (bye)"


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "pickle"],
)
@pytest.mark.parametrize(
    "error",
    [
        *(fatal_error(code, "why", Intents.all()) for code in FATAL),
        ShardClosed(None, "why"),
        UnreadableMessage("not JSON", b"\xff"),
        errors.ConnectionFailed("refused"),
        errors.HTTPFailed(429, "wait", "asked, and refused", retry_after=65.0),
        SessionLimitReached(16, 3, 65.5),
        SendTimeout("too slow"),
        errors.BrokenStream("damaged"),
        errors.BrokenStream("too large", limit=1000),
        UnreadableMessage("too large", "[]", limit=1000),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_copying_and_pickling(
    error: ShardError, duplicate: Callable[[ShardError], ShardError]
) -> None:
    again = duplicate(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_error_is_a_shard_error() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(classes) > 10
    assert all(issubclass(value, ShardError) for value in classes)
    assert issubclass(SendTimeout, TimeoutError)


def test_an_unreadable_message_shows_its_text_only_in_the_attribute() -> None:
    error = UnreadableMessage("not JSON", "private")
    assert error.text == "private"
    assert "private" not in str(error) + repr(error)


FORGED = "bye\r\n00:00:00 all is well\x1b[2J\u202eknab\x85\u2028\ud800"


@pytest.mark.parametrize(
    "error",
    [
        *(fatal_error(code, FORGED, Intents.all()) for code in FATAL),
        ShardClosed(4000, FORGED),
        ShardClosed(None, FORGED),
        UnreadableMessage(FORGED, FORGED),
        errors.BrokenStream(FORGED),
        errors.ConnectionFailed(FORGED),
        errors.HTTPFailed(500, FORGED),
        errors.HTTPFailed(500, "", FORGED),
        ShardsFailed({3: ShardClosed(4000, FORGED)}),
        ShardsFailed({3: ValueError(FORGED)}),
        SendTimeout(FORGED),
        errors.NotReady(FORGED),
    ],
    ids=lambda error: type(error).__name__,
)
def test_text_of_a_peer_cannot_forge_a_line_of_an_error(error: ShardError) -> None:
    assert str(error).isprintable()
    assert r"bye\r\n00:00:00 all is well\x1b[2J\u202eknab\x85\u2028\ud800" in str(error)


def test_the_reason_attribute_keeps_the_text_of_the_peer() -> None:
    assert ShardClosed(4000, FORGED).reason == FORGED


def test_a_long_reason_of_a_peer_is_cut_in_the_message() -> None:
    error = ShardClosed(4000, "x" * 100_000)
    assert len(str(error)) < 300
    assert str(error).endswith("xxx...)")
    # A reason without a code is a sentence of this library, and is shown whole.
    sentence = "why " * 100 + "so"
    assert str(ShardClosed(None, sentence)) == sentence


def test_a_long_body_is_cut_in_the_message() -> None:
    error = errors.HTTPFailed(500, "x" * 4096)
    assert len(str(error)) < 300
    assert str(error).endswith("it says: " + "x" * 200 + "...")
    assert error.body == "x" * 4096
    assert str(errors.HTTPFailed(500, "")) == "the HTTP API answered with status 500"


@pytest.mark.parametrize(
    ("remaining", "allowed"), [(0, "allows no more"), (1, "allows 1 more"), (15, "allows 15 more")]
)
def test_a_reached_session_limit_says_how_long_to_wait_and_what_to_stop(
    remaining: int, allowed: str
) -> None:
    error = SessionLimitReached(16, remaining, 83_040.7)
    assert (error.needed, error.remaining, error.reset_after) == (16, remaining, 83_040.7)
    text = str(error)
    assert text.startswith(f"the bot needs 16 new sessions, and Discord {allowed} for now; ")
    assert "again in 23 h 4 min. Wait until then" in text
    assert "stop what restarts the bot" in text
    assert "needs 1 new session, and" in str(SessionLimitReached(1, 0, 60.0))


def test_a_reached_session_limit_without_a_time_says_that_discord_names_none() -> None:
    text = str(SessionLimitReached(16, 3, 0.0))
    assert "Discord does not say when the full number is allowed again. Ask later, and" in text
    assert "in 1 s. Wait until then" in str(SessionLimitReached(16, 3, 0.2))


def test_failed_shards_are_named_with_their_errors_and_the_first_in_full() -> None:
    first = ShardingRequired(4011, "too many guilds")
    error = ShardsFailed({12: KeyError("d"), 3: first})
    assert error.errors == {3: first, 12: error.errors[12]}
    assert list(error.errors) == [3, 12]
    assert str(error) == f"2 shards failed: 3 (ShardingRequired), 12 (KeyError). Shard 3: {first}"
    assert str(ShardsFailed({0: KeyError()})) == "1 shard failed: 0 (KeyError). Shard 0: KeyError()"


@pytest.mark.parametrize(("shards", "more"), [(10, ""), (11, " and 1 more"), (17, " and 7 more")])
def test_of_many_failed_shards_the_message_names_ten(shards: int, more: str) -> None:
    error = ShardsFailed({shard_id: SystemExit(1) for shard_id in reversed(range(shards))})
    assert len(error.errors) == shards
    assert str(error).startswith(f"{shards} shards failed: 0 (SystemExit), 1 (SystemExit), ")
    assert str(error).endswith(f"8 (SystemExit), 9 (SystemExit){more}. Shard 0: 1")


def test_failed_shards_are_no_shards_without_an_error() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        ShardsFailed({})


def test_failed_shards_keep_their_errors_whatever_becomes_of_the_argument() -> None:
    errors_by_shard: dict[int, BaseException] = {3: ValueError("why")}
    error = ShardsFailed(errors_by_shard)
    errors_by_shard.clear()
    assert list(error.errors) == [3]


def test_failed_shards_survive_copying_and_pickling() -> None:
    error = ShardsFailed({3: ShardingRequired(4011, "why"), 4: ValueError("wrong")})
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is ShardsFailed
        assert str(again) == str(error)
        assert repr(again) == repr(error)
        assert type(again.errors[4]) is ValueError
        required = again.errors[3]
        assert isinstance(required, ShardingRequired) and required.code == 4011
