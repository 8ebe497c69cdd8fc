"""What the log and the errors say: what happened, what it means, what to do."""

from __future__ import annotations

import logging

import pytest

from shardlib import NotReady, ShardClosed
from shardlib.errors import meaning_of
from shardlib.loss import Cause, Loss
from tests.recorder import Recorder
from tests.shards import make_gateway, make_shard
from tests.support import wait_until


def test_the_warning_of_a_gap_names_its_sequences(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    with make_gateway(guilds=0) as gateway, make_shard(recorder) as shard:
        shard.connect(gateway.url)
        connection = gateway.wait_for_connection()
        connection.wait_until_ready()
        for sequence in (4, 5, 9):
            connection.send({"op": 0, "t": "TYPING_START", "s": sequence, "d": {}})
        wait_until(lambda: shard.last_sequence == 9 and shard.stats.gaps == 2)
    (warning,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.getMessage().startswith(
        "the sequence jumped from 1 to 4: the Gateway left out 2 numbers"
    )


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (4000, "unknown error"),
        (4009, "session timed out"),
        (4006, ""),
        (1000, ""),
        (None, ""),
    ],
)
def test_a_close_code_without_a_reason_is_explained_in_words(
    code: int | None, meaning: str
) -> None:
    assert meaning_of(code) == meaning
    assert (meaning or "no reason given") in str(Loss(Cause.CLOSED, "", code))
    assert meaning in str(ShardClosed(code))
    assert "(why)" in str(Loss(Cause.CLOSED, "why", code))


def test_the_error_of_sending_too_early_says_how_to_wait() -> None:
    errors: list[NotReady] = []
    with make_gateway() as gateway, make_shard() as shard:

        def connected(shard: object) -> None:
            with pytest.raises(NotReady) as caught:
                send()
            errors.append(caught.value)

        def send() -> None:
            shard.update_presence(status="idle")

        with pytest.raises(NotReady, match=r"disconnected, not ready; connect\(\)"):
            send()
        shard.on_socket_connected = connected
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
    assert "send in on_socket_ready" in str(errors[0])


def test_the_log_names_the_exception_that_closed_the_shard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def leave(shard: object) -> None:
        raise SystemExit(3)

    caplog.set_level(logging.INFO)
    with make_gateway() as gateway:
        shard = make_shard(on_socket_ready=leave)
        shard.connect(gateway.url)
        with pytest.raises(SystemExit):
            shard.join(10)
    assert caplog.records[-1].getMessage() == "closed: a callback raised SystemExit(3)"
