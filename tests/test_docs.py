"""The Python code that stands in the documentation's pages, run against a local gateway.

Programs and tests that a page includes are files, which have tests of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import re
import signal
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.region import Lexeme

import shardlib
from shardlib import Intents, Shard
from shardlib.dispatch import Mailbox, Pool
from shardlib.gateway import GATEWAY_URL
from shardlib.testing import LocalGateway
from tests.examples import PATIENCE, ROOT

PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.rst"))

# Pages whose code is compiled only, and why.
NOT_RUN = {
    "fleet.rst": "needs a Redis; tests/fleet/test_consumer_of_a_fleet.py runs a consumer",
    "fleet-consumers.rst": "needs a Redis and workers; the tests of tests/fleet have them",
    "django.rst": "parts of a project of Django; tests/test_examples.py runs the command",
    "gui.rst": "loops of windows; tests/test_examples.py runs and closes whole programs",
    "notebooks.rst": "the cells of examples/notebook.ipynb, which tests/test_examples.py runs",
    "servers.rst": "parts of web servers; tests/test_examples.py runs whole ones",
    "shards.rst": "needs a bot of many shards; tests/test_examples.py runs examples/many_shards.py",
}

# Blocks of other pages that are compiled only, by their first lines, and why.
BLOCKS_NOT_RUN = {
    "wake = threading.Event()": "a loop without end",
    'if os.environ.get("FLASK_DEBUG") != "1" or '
    'os.environ.get("WERKZEUG_RUN_MAIN") == "true":': "part of an application of Flask",
    "from logging.handlers import RotatingFileHandler": "its handlers would stay",
    'logging.getLogger("shardlib").setLevel(logging.WARNING)': "its levels would stay",
    "context = ssl.create_default_context()    # needs import ssl": (
        "needs a company; tests/test_company_network.py is one"
    ),
    "message = f\"/channels/{data['channel_id']}/messages/{data['id']}\"": "part of an example",
    'discord.http.Route.BASE = os.environ["DISCORD_API"]': "discord.py; tests/interop has it",
}

# What a block of literal text begins with that is no Python.
_NO_PYTHON = re.compile(
    r"\$ |\w+\$ |\d|>>> |\[|[A-Z_]+=|ACL |\S+: "
    "|shardlib |export |python |gunicorn |uwsgi |coverage |tried "
)
_BLOCK = re.compile(
    r"^(?P<indent> *)(?:\.\. code-block:: python|(?!\.\. )[^\n]*::)\n"
    r"(?P<block>(?:\n|(?P=indent) +[^\n]*(?:\n|\Z))+)",
    re.MULTILINE,
)


class Enough(Exception):
    """Leaves a loop of a page that goes on for as long as events come."""


class LocalShard(Shard):
    """A shard whose default URL is that of a local gateway."""

    url: str

    def connect(self, socket_url: str = GATEWAY_URL, socket_version: int = 10) -> None:
        super().connect(self.url if socket_url == GATEWAY_URL else socket_url, socket_version)

    def run_forever(self, socket_url: str = GATEWAY_URL, socket_version: int = 10) -> None:
        """Connect, and disconnect when the shard is ready, as a page's reader would."""
        self.connect()
        self.wait_until_ready(PATIENCE)
        self.disconnect()


def first_paragraphs(text: str) -> str:
    """The lines that are indented at least as much as the first, without that indentation."""
    lines = text.strip("\n").split("\n")
    indent = re.match(" *", lines[0])[0]  # type: ignore[index]
    block = itertools.takewhile(lambda line: not line or line.startswith(indent), lines)
    return textwrap.dedent("\n".join(block)).strip("\n")


def python_blocks(document: Document) -> Iterator[Region]:
    """Find the blocks of a page that are Python."""
    for match in _BLOCK.finditer(document.text):
        source = first_paragraphs(match["block"])
        if source and not _NO_PYTHON.match(source):
            lexeme = Lexeme(source + "\n", match.start("block"), 1)
            yield Region(match.start(), match.end(), lexeme, run)


def run(example: Example) -> None:
    source = str(example.parsed)
    compile(source, example.path, "exec")
    page = Path(example.path).name
    if page not in NOT_RUN and source.split("\n")[0] not in BLOCKS_NOT_RUN:
        with contextlib.suppress(Enough):
            PythonEvaluator()(example)


def leave(*_: object) -> None:
    raise Enough


def show(*words: object) -> None:
    """What print() does in a loop over messages."""
    if words[0] == "MESSAGE_CREATE":
        raise Enough


def times(number: int) -> Any:
    """An object that is true so many times."""

    class Times:
        left = number

        def __bool__(self) -> bool:
            self.left -= 1
            return self.left >= 0

    return Times()


class Database:
    """What a page stores rows in."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def insert(self, rows: Any) -> None:
        self.rows.append(rows)


def names_of(gateway: LocalGateway, shard: Shard) -> dict[str, Any]:
    """The names that pages take for granted."""
    guild = next(iter(gateway.world.guilds.values()))
    return {
        "os": os,
        "signal": signal,
        "threading": threading,
        "deque": deque,
        "shardlib": shardlib,
        "Shard": LocalShard,
        "Intents": Intents,
        "Pool": Pool,
        "Mailbox": Mailbox,
        "LocalGateway": LocalGateway,
        "logging": logging,
        "freeze_time": freeze_time,
        "print": show,
        "gateway": gateway,
        "token": gateway.token,
        "intents": Intents.all(),
        "shard": shard,
        "bot": shard,
        "guild_id": guild.id,
        "channel_id": guild.voice_channels[0]["id"],
        "data": {"id": "1", "channel_id": "2"},
        "call": lambda *_: None,
        "playing": times(3),
        "draw_frame": lambda: None,
        "scroll": set(),
        "database": Database(),
        "rows": [],
        "collect": lambda *_: None,
        "waiting": queue.Queue(),
        "handle": leave,
        "input": lambda _: "",
        "app": App(),
        "jsonify": list,
    }


class App:
    """As much of Flask as a page uses."""

    def get(self, path: str) -> Callable[[Any], Any]:
        return lambda function: function


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        gateway.traffic(rate=50)
        yield gateway


@pytest.fixture
def signals() -> Iterator[None]:
    """Give the handler of SIGTERM back after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def shown_code(page: str) -> Iterator[str]:
    """The lines of Python that a page shows, those of the files that it includes among them."""
    text = (ROOT / "docs" / page).read_text()
    for region in python_blocks(Document(text, page)):
        yield from str(region.parsed).split("\n")
    included = r"^\.\. literalinclude:: (\S+\.py)\n((?:   .*\n)*)"
    for match in re.finditer(included, text, re.MULTILINE):
        source = (ROOT / "docs" / match[1]).read_text()
        for option, part in (("start-after", 2), ("end-before", 0)):
            if mark := re.search(f":{option}: (.+)", match[2]):
                source = source.partition(mark[1])[part]
        yield from source.split("\n")


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_python_is_too_wide_for_a_screen_of_1280_pixels(page: str) -> None:
    assert [line for line in shown_code(page) if len(line) > 90] == []


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("page", PAGES)
def test_the_python_code_of_a_page_runs(
    page: str, gateway: LocalGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalShard, "url", gateway.url, raising=False)
    monkeypatch.setattr(shardlib, "Shard", LocalShard)
    document = Sybil([python_blocks]).parse(ROOT / "docs" / page)
    with LocalShard(gateway.token, Intents.all()) as shard:
        if page not in NOT_RUN:
            shard.connect()
            shard.wait_until_ready(PATIENCE)
            shard.on("MESSAGE_CREATE", lambda *_: None)
            shard.wait_for("MESSAGE_CREATE", timeout=PATIENCE)
        document.namespace.update(names_of(gateway, shard))
        for example in document.examples():
            document.namespace["shard"] = shard  # a block before may have made another one
            example.evaluate()
        for running in shardlib.running_shards():
            running.disconnect()


def test_each_exception_is_a_block_of_a_page() -> None:
    firsts = {
        str(region.parsed).split("\n")[0]
        for page in PAGES
        for region in python_blocks(Document((ROOT / "docs" / page).read_text(), page))
    }
    assert firsts >= set(BLOCKS_NOT_RUN)
    assert set(PAGES) >= set(NOT_RUN)
