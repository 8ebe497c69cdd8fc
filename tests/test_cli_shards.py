"""``shardlib tail --shards``, run as users run it: with pipes, a terminal and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.cli.shardtable import Row, table
from shardlib.state import ShardState
from shardlib.testing import LocalGateway
from tests.command import CTRL_C, PATIENCE, Command, Pipe, assert_quiet, run_to_end, wait_for
from tests.pseudoterminal import PseudoTerminal
from tests.support import TOKEN, send_signal, wait_until

SHARDS = 4

EVENT = re.compile(r"\d\d:\d\d:\d\d  (\d)/4 +(\d+)  (\w+).*")
LAST_LINE = re.compile(r"\d\d:\d\d:\d\d -- all shards are closed")


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(
        shards=SHARDS, guilds=SHARDS, max_concurrency=SHARDS, identify_interval=0
    ) as gateway:
        yield gateway


def arguments(gateway: LocalGateway, *others: str) -> tuple[str, ...]:
    return ("tail", "--api-url", gateway.http_url, "--shards", "auto", *others)


def await_sessions(gateway: LocalGateway) -> None:
    wait_until(lambda: len(gateway.sessions) == SHARDS, PATIENCE, "all sessions")


# Events


def test_tail_prints_the_events_of_all_shards_and_whose_they_are(gateway: LocalGateway) -> None:
    command = run_to_end(*arguments(gateway, "--count", "8"), token=gateway.token)
    assert command.status == 0
    first: dict[str, list[tuple[str, str]]] = {shard_id: [] for shard_id in "0123"}
    for line in command.out:
        match = EVENT.fullmatch(line)
        assert match, line
        first[match[1]].append((match[2], match[3]))
    # Each shard has one guild. The shards print at the same time, each in its own order.
    assert all(events == [("1", "READY"), ("2", "GUILD_CREATE")] for events in first.values())


def test_tail_with_json_tells_the_shard_in_each_payload(gateway: LocalGateway) -> None:
    command = run_to_end(
        *arguments(gateway, "--json", "--events", "READY", "--count", "4"), token=gateway.token
    )
    assert command.status == 0
    payloads = [json.loads(line) for line in command.out]
    assert sorted(payload["shard"] for payload in payloads) == [0, 1, 2, 3]
    assert all(payload["d"]["shard"] == [payload["shard"], 4] for payload in payloads)
    assert payloads[0].keys() == {"op", "s", "t", "d", "shard"}


def test_tail_prints_no_more_than_count_events_of_all_shards_together() -> None:
    command = run_to_end("tail", "--local", "--shards", "3", "--count", "5")
    assert command.status == 0
    assert len(command.out) == 5


def test_a_slow_reader_of_the_pipe_gets_every_event_of_all_shards_whole(
    gateway: LocalGateway,
) -> None:
    each = 800
    with (
        Pipe() as pipe,
        Command(
            *arguments(gateway, "--json", "--events", "SLOW", "--count", str(each * SHARDS)),
            token=gateway.token,
            stdout=pipe,
        ) as command,
    ):
        await_sessions(gateway)
        for number in range(each):
            for guild_id in gateway.world.guilds:
                content = "x" * 5000  # more than a pipe takes in one piece
                gateway.dispatch("SLOW", {"guild_id": guild_id, "n": number, "content": content})
        wait_until(pipe.is_full, PATIENCE)
        payloads = [json.loads(line) for line in pipe.read_rest()]
        assert command.finish() == 0
    for shard_id in range(SHARDS):
        numbers = [payload["d"]["n"] for payload in payloads if payload["shard"] == shard_id]
        assert numbers == list(range(each))


def test_a_single_shard_may_have_a_manager(gateway: LocalGateway) -> None:
    command = run_to_end(
        *("tail", "--api-url", gateway.http_url, "--url", gateway.url, "--shards", "1"),
        *("--count", "5", "--intents", "guilds"),
        token=gateway.token,
    )
    assert command.status == 0
    assert all("  0/1  " in line for line in command.out)
    (identify,) = gateway.identifies
    assert (identify.shard_id, identify.shard_count) == (0, 1)


# States


def test_standard_error_tells_each_change_of_a_shards_state(gateway: LocalGateway) -> None:
    with Command(*arguments(gateway, "--events", "NEVER"), token=gateway.token) as command:
        command.read()
        wait_for(command.err, "all 4 shards are ready")
        session = next(it for it in gateway.sessions if it.shard == (2, 4))
        assert session.connection is not None
        session.connection.close(4000)
        wait_for(command.err, "shard 2: resumed, session")
        command.interrupt()
        assert command.finish() == 0
    for shard_id in range(SHARDS):
        told = [
            line.partition(f" -- shard {shard_id}: ")[2]
            for line in command.err
            if f" -- shard {shard_id}: " in line
        ]
        assert told[:3] == ["connecting", "connected", "identifying"]
        assert told[3].startswith("ready, session ")
        assert len(told) == (9 if shard_id == 2 else 4)
        if shard_id == 2:
            assert "4000" in told[4]
            assert told[5:8] == ["connecting", "connected", "resuming"]


def test_verbose_tells_whose_log_a_line_is(gateway: LocalGateway) -> None:
    with Command(*arguments(gateway, "-v"), token=gateway.token) as command:
        command.read()
        wait_for(command.err, "all 4 shards are ready")
        assert re.search(r" -- shard 3: .*\"op\": ?2", "\n".join(command.err))


# Ends


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=str)
def test_a_signal_closes_all_shards_and_tells_so_in_one_line(
    signals: list[signal.Signals], gateway: LocalGateway
) -> None:
    with Command(*arguments(gateway), token=gateway.token) as command:
        command.read()
        wait_for(command.err, "all 4 shards are ready")
        told = len(command.err)
        for number in signals:
            command.process.send_signal(number)
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)
    (last,) = command.err[told:]
    assert LAST_LINE.fullmatch(last)
    assert [it.close_code for it in gateway.all_connections] == [1000] * SHARDS


def test_ctrl_c_while_discord_is_asked_ends_the_command_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = "http://127.0.0.1:%d/" % silent.getsockname()[1]
        with Command("tail", "--shards", "4", "--api-url", url, token=TOKEN) as command:
            command.read()
            silent.settimeout(PATIENCE)
            client, _ = silent.accept()
            with client:
                command.interrupt()
                assert command.finish(CTRL_C) == 0
    assert_quiet(command)


def test_ctrl_c_while_shards_wait_for_their_turn_ends_the_command_quietly(
    gateway: LocalGateway,
) -> None:
    gateway.max_concurrency = 1
    with Command(*arguments(gateway), token=gateway.token) as command:
        command.read()
        wait_for(command.out, "GUILD_CREATE")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)
    assert LAST_LINE.fullmatch(command.err[-1])


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "both streams"])
def test_ctrl_c_while_the_pipe_is_full_ends_all_shards(both: bool, gateway: LocalGateway) -> None:
    with (
        Pipe() as pipe,
        Command(
            *arguments(gateway, "--json", *(("-v",) if both else ())),
            token=gateway.token,
            stdout=pipe,
            stderr=pipe if both else subprocess.PIPE,
        ) as command,
    ):
        await_sessions(gateway)
        gateway.traffic(rate=None)
        wait_until(pipe.is_full, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


def test_many_shards_end_quietly_when_head_closes_the_pipe() -> None:
    with Command("tail", "--local", "--shards", "4") as command:
        head = subprocess.run(
            ["head", "-n", "1"],
            stdin=command.process.stdout,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        assert command.process.stdout is not None
        command.process.stdout.close()
        assert command.finish() == 0
    assert b" READY " in head.stdout
    assert_quiet(command)


# Errors


def test_a_wrong_token_of_many_shards_is_reported_in_one_line(gateway: LocalGateway) -> None:
    command = run_to_end(*arguments(gateway), token=TOKEN)
    assert command.status == 1
    asking, error = command.err
    assert f"asking {gateway.http_url}" in asking
    assert error.startswith("shardlib: ")
    assert "Developer Portal" in error


def test_too_few_session_starts_are_reported_in_one_line(gateway: LocalGateway) -> None:
    gateway.session_start_limit = SHARDS - 1
    command = run_to_end(*arguments(gateway), token=gateway.token)
    assert command.status == 1
    _, error = command.err
    assert error.startswith("shardlib: the bot needs 4 new sessions, and Discord allows 3 more")
    assert not gateway.identifies


def test_a_refused_connection_of_all_shards_is_reported_in_one_line(gateway: LocalGateway) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = "ws://127.0.0.1:%d/" % bound.getsockname()[1]
        command = run_to_end(*arguments(gateway, "--url", url), token=gateway.token)
    assert command.status == 1
    assert command.err[-1].startswith("shardlib: ")
    assert "Connection refused" in command.err[-1]


def test_intents_that_are_refused_close_all_shards_with_one_line(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4014), instead_of="ready", shard_id=1)
    command = run_to_end(*arguments(gateway), token=gateway.token)
    assert command.status == 1
    errors = [line for line in command.err if "4014" in line or "closed" in line]
    assert len(errors) == 1
    assert errors[0] == command.err[-1]
    assert errors[0].startswith("shardlib: the Gateway closed the connection with code 4014")


def test_one_shard_that_fails_is_told_and_the_others_go_on(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4010), instead_of="ready", shard_id=1)
    with Command(*arguments(gateway), token=gateway.token) as command:
        command.read()
        wait_for(command.err, "shard 1: closed: the Gateway closed the connection with code 4010")
        wait_for(command.err, "shard 1 of 4 is closed")
        wait_until(lambda: len(gateway.sessions) == SHARDS - 1, PATIENCE)
        told = len(command.out)
        for guild_id in gateway.world.guilds:
            gateway.dispatch("ODD", {"guild_id": guild_id})
        wait_until(lambda: sum("ODD" in line for line in command.out[told:]) == 3, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert LAST_LINE.fullmatch(command.err[-1])


def test_the_command_fails_when_all_shards_have_failed(gateway: LocalGateway) -> None:
    gateway.inject(lambda it: it.close(4010), instead_of="ready", connections=None)
    command = run_to_end(*arguments(gateway), token=gateway.token)
    assert command.status == 1
    assert not command.out
    assert command.err[-1].startswith("shardlib: ")
    assert "4010" in command.err[-1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shards", "0"], "auto, or a number from 1 up, not '0'"),
        (["--shards", "many"], "auto, or a number from 1 up, not 'many'"),
        (["--shards", "2", "--shard", "0/2"], "not allowed with"),
        (["--shards", "2", "--url", "ws://localhost"], "needs --api-url"),
        (["--shards", "2", "--api-url", "http://discord.com"], "would be sent unencrypted"),
        (["--shards", "2", "--local", "--api-url", "http://127.0.0.1"], "not allowed with --local"),
        (["--api-url", "http://127.0.0.1"], "goes with --shards"),
    ],
)
def test_options_of_tail_that_do_not_go_together_are_refused(options: list[str], says: str) -> None:
    command = run_to_end("tail", *options, token=TOKEN)
    assert command.status == 2
    (error,) = command.err
    assert says in error


# A terminal


def show(
    gateway: LocalGateway, terminal: PseudoTerminal, *others: str, **variables: str
) -> Command:
    return Command(
        *arguments(gateway, *others),
        token=gateway.token,
        environment={"TERM": "xterm", "NO_COLOR": "1", **variables},
        stdout=terminal.follower,
        stderr=terminal.follower,
    )


def is_table(lines: list[str]) -> bool:
    head, cells = lines
    shown = re.sub(r" \d+ ms", "", cells)
    return (
        head == "4 shards: 4 ready" and shown.split() == "0 ready 1 ready 2 ready 3 ready".split()
    )


def test_the_table_stays_below_the_events_and_goes_at_the_end(
    gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    terminal.resize(79, 24)
    guild_id = next(iter(gateway.world.guilds))
    with show(gateway, terminal) as command:
        terminal.read_until(b"4 shards: 4 ready")
        for number in range(30):
            gateway.dispatch("EVENT_%d" % number, {"guild_id": guild_id})
        terminal.read_until(b"EVENT_29")
        wait_until(lambda: terminal.read_some() and is_table(terminal.lines(79)[-2:]), PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    terminal.read_rest()
    assert b"\x1b[1m" not in terminal.text  # NO_COLOR
    *lines, last, shell = terminal.lines(79)
    assert LAST_LINE.fullmatch(last)
    assert shell == ""
    events = [match for line in lines if (match := EVENT.fullmatch(line))]
    assert [match[3] for match in events][-30:] == ["EVENT_%d" % number for number in range(30)]
    assert len(events) + sum(" -- " in line for line in lines) == len(lines)


def test_the_table_has_styles_and_tells_of_a_shard_that_has_failed(
    gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    gateway.inject(lambda it: it.close(4010), instead_of="ready", shard_id=1)
    terminal.resize(200, 50)
    with show(gateway, terminal, NO_COLOR="") as command:
        terminal.read_until(b"\x1b[1m4 shards: 3 ready, 1 closed\x1b[0m")
        terminal.read_until(b"\x1b[31m1 closed       \x1b[0m")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    terminal.read_rest()
    assert "shard 1: closed: the Gateway closed" in "\n".join(terminal.lines(200))


def test_a_terminal_without_a_cursor_gets_lines(
    gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    with show(gateway, terminal, TERM="dumb") as command:
        terminal.read_until(b"shard 0: identifying")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    terminal.read_rest()
    assert b"\x1b" not in terminal.text
    assert b"shards:" not in terminal.text


def test_the_table_is_on_the_terminal_while_the_events_go_into_a_pipe(
    gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    with Command(
        *arguments(gateway, "--json"),
        token=gateway.token,
        environment={"TERM": "xterm"},
        stderr=terminal.follower,
    ) as command:
        command.read()
        terminal.read_until(b"4 shards: 4 ready")
        wait_until(lambda: len(command.out) >= 2 * SHARDS, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert all(json.loads(line)["op"] == 0 for line in command.out)
    terminal.read_rest()
    assert not any("READY" in line or "shards:" in line for line in terminal.lines(80))


@pytest.mark.parametrize("by", ["a narrower terminal", "another program"])
def test_the_table_moves_down_if_its_place_is_lost(
    by: str, gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    terminal.resize(79, 24)
    # A ping that came as the command goes on would be shown before the command handles SIGCONT.
    gateway.heartbeat_interval = 10**9
    with show(gateway, terminal, "--events", "NEVER") as command:
        terminal.read_until(b"4 shards: 4 ready")
        wait_until(lambda: terminal.read_some() and is_table(terminal.lines(79)[-2:]), PATIENCE)
        if by == "another program":  # as the shell does after Ctrl-Z
            send_signal(command.process, signal.SIGSTOP)
            os.write(terminal.follower, b"\nprinted by a shell\n")
            command.process.send_signal(signal.SIGCONT)
        else:
            terminal.resize(70, 24)
        wait_until(
            lambda: terminal.read_some() and terminal.lines(79).count("4 shards: 4 ready") >= 2,
            PATIENCE,
        )
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    terminal.read_rest()
    lines = terminal.lines(79)
    assert sum("4 shards: 4 ready" in line for line in lines) == 1  # the first, in its place
    assert ("printed by a shell" in lines) is (by == "another program")


@pytest.mark.slow
def test_ctrl_c_while_the_terminal_takes_no_text_ends_the_command(
    gateway: LocalGateway, terminal: PseudoTerminal
) -> None:
    with show(gateway, terminal) as command:
        await_sessions(gateway)
        gateway.traffic(rate=None)
        wait_until(terminal.is_full, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0


# The table

ROWS = st.builds(Row, st.sampled_from(list(ShardState)), st.none() | st.floats(0, 1e9))


@given(
    st.dictionaries(st.integers(0, 2000), ROWS, max_size=100),
    st.integers(1, 200),
    st.integers(1, 60),
)
def test_the_table_is_never_larger_than_it_may_be(
    shards: dict[int, Row], columns: int, rows: int
) -> None:
    lines = table(shards, columns, rows, lambda text, style: text)
    assert len(lines) <= rows
    assert all(len(line) <= columns for line in lines)
    assert bool(lines) is bool(shards)


def test_the_table_has_each_shard_in_its_place_or_the_shards_of_each_state() -> None:
    def lines(count: int, columns: int, rows: int) -> list[str]:
        shards = {number: Row(ShardState.READY, 0.0412) for number in range(count)}
        shards[1] = Row(ShardState.WAITING, 0.0412)
        shards[count - 1] = Row(ShardState.DISCONNECTED, None)
        return table(shards, columns, rows, lambda text, style: text)

    assert lines(7, 50, 4) == [
        "7 shards: 5 ready, 1 queued, 1 waiting",
        "0 ready 41 ms    3 ready 41 ms    6 queued",
        "1 waiting        4 ready 41 ms",
        "2 ready 41 ms    5 ready 41 ms",
    ]
    assert lines(7, 50, 3) == ["7 shards: 5 ready, 1 queued, 1 waiting"]
    assert lines(100, 50, 10) == [
        "100 shards: 98 ready, 1 queued, 1 waiting",
        "ready        0, 2-98",
        "queued       99",
        "waiting      1",
    ]
    assert lines(100, 20, 10)[0] == "100 shards: 98 re..."
