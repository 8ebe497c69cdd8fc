"""The benchmarks measure what they say: the whole stream, and one event at a time."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the local gateway records the stream")
pytest.importorskip("trustme", reason="the sender's certificates are made with it")
pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")

from benchmarks import shards
from benchmarks.clients import BARE_LOOP, CLIENTS, FLOOR, is_installed, versions
from benchmarks.instructions import too_much
from benchmarks.kept import Kept, Run, read
from benchmarks.large import large_event
from benchmarks.measure import Bench, Client, bench
from benchmarks.pages import DOCS, PICTURES, TABLES, draw, with_tables
from benchmarks.plot import PERCENTS, plot_bars, plot_curves
from benchmarks.sender import Sender, send_one_at_a_time
from benchmarks.single import MANY, system_calls
from benchmarks.stream import COMPRESSIONS, record
from benchmarks.table import percentile, show_table

EVENTS = 40
A_RUN = Kept("python -m benchmarks.x", "2026-11-26", "abc", 2, 1.0, 2.5, {"CPython": "3.11"}, {})
NEEDED_IN_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="this system does not tell whether a process sleeps"
)


@pytest.fixture(scope="module")
def place() -> Iterator[Bench]:
    with bench(record(EVENTS)) as place:
        yield place


# The stream


def test_two_recordings_hold_the_same_events() -> None:
    first, second = record(EVENTS), record(EVENTS)
    assert [json.loads(each)["t"] for each in first] == [json.loads(each)["t"] for each in second]
    # Session ids, and a bot's token in them, are as long as each other.
    assert [len(each) for each in first] == [len(each) for each in second]


def test_an_event_has_about_the_size_of_discords() -> None:
    events = record(3000)
    assert 1500 < sum(map(len, events)) / len(events) < 1900


# The clients


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_each_benchmark_client_gets_every_event(
    place: Bench, client: Client, compression: str
) -> None:
    if not is_installed(client):
        pytest.skip("its library is not installed")
    result = place.run(client, compression, stamps=True)
    hello = client.peer not in ("shardlib", "hikari", "discord_py")  # else it is no event
    assert len(result.stamps) == (hello + EVENTS + 1 if client.listens else 0)


@NEEDED_IN_LINUX
@pytest.mark.parametrize("secure", [False, True])
def test_at_single_pace_each_event_is_sent_after_the_last_callback(
    place: Bench, secure: bool
) -> None:
    result = place.run(
        Client("shardlib", "ujson"), "zlib-stream", pace="single", secure=secure, stamps=True
    )
    sent = result.sent[-len(result.stamps) :]
    # Each callback was called after its event was sent, and before the next one was.
    times = [time for pair in zip(sent, result.stamps, strict=True) for time in pair]
    assert times == sorted(times)


def test_all_connections_of_a_benchmark_process_get_every_event(place: Bench) -> None:
    result = place.run(Client("shardlib", "ujson"), "zlib-stream", connections=3, stamps=True)
    assert len(result.stamps) == 3 * (EVENTS + 1)


@pytest.mark.parametrize("row", shards.rows([Client("shardlib", "ujson")]), ids=lambda row: row[1])
@pytest.mark.parametrize("connections", [1, 3])
def test_each_arrangement_of_busy_shards_runs(
    place: Bench, row: shards.Row, connections: int
) -> None:
    results = shards.run(place, row, "zlib-stream", connections)
    several = row[1] == "two processes" and connections > 1
    assert len(results) == (2 if several else 1)


def test_a_client_that_hangs_is_ended(place: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measure._TIMEOUT", 0.5)
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(RuntimeError, match="a client failed"):
        place.run(Client("shardlib", "ujson"), "zlib-stream", under=hanging)


# The sender


_SLOW_CLIENT = """
import socket, sys, time
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"GET / HTTP/1.1\\r\\nSec-WebSocket-Key: abc\\r\\n\\r\\n")
while b"\\r\\n\\r\\n" not in client.recv(4096): pass
for _ in range(5):
    client.recv(4096)
    until = time.process_time() + 0.05
    while time.process_time() < until: pass
"""


@NEEDED_IN_LINUX
def test_the_sender_waits_while_a_client_works() -> None:
    with Sender() as sender:
        port = sender.url.rpartition(":")[2]
        with subprocess.Popen([sys.executable, "-c", _SLOW_CLIENT, port]) as process:
            with sender.accept(process) as connection:
                sent = send_one_at_a_time(connection, [b"event"] * 5, process.pid)
    # The client may read the first event together with the answer to its handshake.
    pauses = [later - earlier for earlier, later in itertools.pairwise(sent[1:])]
    assert min(pauses) >= 0.05


def test_a_client_that_ends_before_it_connects_raises_in_the_sender() -> None:
    with Sender() as sender, subprocess.Popen([sys.executable, "-c", ""]) as process:
        with pytest.raises(RuntimeError, match="a client failed"):
            sender.accept(process)


# What is counted


@NEEDED_IN_LINUX
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the system calls")
def test_a_bare_loop_makes_one_system_call_for_an_event() -> None:
    with bench(record(MANY)) as place:
        calls = system_calls(place, Client(BARE_LOOP, "ujson"), "zlib-stream", secure=False)
    assert calls == pytest.approx(1.0, abs=0.05)


# What is printed and kept


def test_the_instruction_check_fails_beyond_three_percent() -> None:
    kept = {"bulk": 1.0, "single": 2.0}
    assert too_much({"bulk": 1.03, "single": 2.05}, kept) == []
    assert too_much({"bulk": 1.031, "single": 2.05}, kept) == ["bulk"]


def test_a_table_compares_clients_with_the_same_json_module(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = {
        Client(FLOOR, "ujson"): 2.0,
        Client(FLOOR, "orjson"): 1.0,
        Client("shardlib", "orjson"): 3.0,
    }
    show_table("instructions", figures)
    _, title, header, *rows = capsys.readouterr().out.split("\n")
    assert title == "instructions"
    assert header.split() == ["x", "floor", "x", "ours"]
    assert rows[2].split() == ["shardlib,", "orjson", "3.0", "3.00", "1.00"]


@pytest.mark.parametrize("plot", [plot_bars, plot_curves])
def test_a_plot_is_written_as_svg(tmp_path: Path, plot: Callable[[Path, Any], None]) -> None:
    pytest.importorskip("matplotlib")
    clients = ["shardlib, ujson", "hikari, orjson"]
    figures = {client: 2.0 if plot is plot_bars else [*PERCENTS] for client in clients}
    run = dataclasses.replace(A_RUN, figures={"one table": figures, "another": figures})
    file = tmp_path / "plot.svg"
    plot(file, [run])
    picture = file.read_text()
    assert "<svg" in picture
    assert "hikari, orjson</text>" in picture  # as text, which is smaller than outlines
    assert "2 processors, shared with other work, load 2.5" in picture
    plot(file, [run])
    assert file.read_text() == picture


def test_a_run_keeps_its_figures_with_what_it_ran_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.kept.FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["bulk", "--rounds", "2", "--plot", "x.svg", "--keep"])
    drawn: list[Path] = []
    arguments = argparse.Namespace(plot=Path("x.svg"), keep=True)
    figures = {"a table": {Client("shardlib", "ujson"): 1.23456}}

    Run("bulk").finish(arguments, "bulk", figures, lambda file, runs: drawn.append(file))

    kept = read("bulk")
    assert kept.figures == {"a table": {"shardlib, ujson": 1.2346}}
    assert kept.command == "python -m benchmarks.bulk --rounds 2 --keep"
    assert kept.versions == versions()
    assert drawn == [Path("x.svg")]


# The documentation


@pytest.mark.parametrize("page", ["performance.rst", "reliability.rst"])
def test_the_tables_of_a_page_hold_the_figures_that_are_kept(page: str) -> None:
    text = (DOCS / page).read_text()
    assert text.count("\n.. figures: ") > 2
    assert with_tables(text) == text, "python -m benchmarks --tables makes them anew"


def test_each_table_and_each_plot_stands_in_a_page_once() -> None:
    text = "".join((DOCS / page).read_text() for page in ("performance.rst", "reliability.rst"))
    assert sorted(re.findall(r"^\.\. figures: (\S+)$", text, re.M)) == sorted(TABLES)
    shown = re.findall(r"^\.\. figure:: pictures/(\w+)\.svg$", text, re.M)
    assert sorted(shown) == sorted(PICTURES)


def test_the_plots_of_the_documentation_are_drawn_without_measuring(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path)
    for name in PICTURES:
        picture, kept = (folder / f"{name}.svg" for folder in (tmp_path, DOCS / "pictures"))
        texts = [re.findall(r">([^<\n]+)</text>", file.read_text()) for file in (picture, kept)]
        assert texts[0] == texts[1], f"{name}: python -m benchmarks --plot draws it anew"


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [3.0, 1.0, 2.0, 4.0]
    assert [percentile(values, each) for each in (0, 50, 99)] == [1.0, 3.0, 4.0]


def test_a_large_event_is_one_of_the_recorded_ones_with_more_members() -> None:
    event = large_event(record(100), 1_000_000)
    assert 900_000 < len(event) < 1_100_000
    assert json.loads(event)["t"] == "GUILD_CREATE"


# Many shards


def test_a_manager_is_measured_in_a_process_of_its_own() -> None:
    output = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.manager"),
            *("--shards", "2", "--max-concurrency", "2", "--seconds", "0.3"),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout

    shards, start, least, identifies, threads, *_ = output.splitlines()[-1].split()
    assert (shards, least, identifies, threads) == ("2", "0.00", "2", "5")
    assert float(start) > 0
