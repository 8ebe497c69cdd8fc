"""The examples, run as programs against a local gateway, and the README's claims about them."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import GatewayConnection, LocalGateway
from tests.examples import PATIENCE, ROOT, EarlyInterruptedExample, Example, WindowExample
from tests.support import wait_until
from tests.windows import needs_display


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


def connected(gateway: LocalGateway) -> GatewayConnection:
    return gateway.wait_for_connection(lambda connection: connection.session, PATIENCE)


def write(gateway: LocalGateway, content: str) -> None:
    """Have a member write a message that mentions the bot, which needs no privileged intent."""
    talk(gateway, f"{content} <@{gateway.world.user['id']}>")


def talk(gateway: LocalGateway, *lines: str) -> None:
    """Have three members write in turn; the first is the owner of the guild."""
    guild = next(iter(gateway.world.guilds.values()))
    members = [user_id for user_id in guild.members if user_id != gateway.world.user["id"]]
    for line, author in zip(lines, itertools.cycle(members[:3])):
        gateway.send_message(guild.text_channels[0]["id"], author, line)


def test_bot_prints_messages_and_ends_cleanly_at_ctrl_c(gateway: LocalGateway) -> None:
    with Example(gateway, "bot.py") as bot:
        assert connected(gateway).expect(3, PATIENCE)["d"]["activities"][0]["name"] == "the door"
        write(gateway, "hello")
        bot.wait_for("wrote: hello")
        bot.wait_for("logged in as local-bot")
        assert bot.interrupt() == 0
    assert not any("Traceback" in line for line in bot.lines)


@pytest.mark.parametrize(
    ("end", "arguments"),
    [("enough", ["1"]), ("quiet", ["2", "1"]), ("Ctrl-C", ["2", "60"])],
    ids=["enough", "quiet", "Ctrl-C"],
)
def test_script_events_prints_messages_until_it_has_enough_or_all_are_quiet(
    end: str, arguments: list[str], gateway: LocalGateway
) -> None:
    with Example(gateway, "script_events.py", *arguments) as script:
        script.wait_for(" owns ")
        write(gateway, "hello")
        script.wait_for("wrote: hello")
        if end == "Ctrl-C":
            assert script.interrupt() == 0
        else:
            assert script.process.wait(PATIENCE) == 0
        if end == "quiet":
            script.wait_for("all have been quiet for 1.0 seconds")
    assert not any("Traceback" in line for line in script.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def test_persistent_resumes_the_session_of_the_run_before(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    path = str(tmp_path / "session.json")
    with Example(gateway, "persistent.py", path) as bot:
        connected(gateway)
        write(gateway, "before")
        bot.wait_for("wrote: before")
        assert bot.interrupt() == 0
    write(gateway, "meanwhile")
    with Example(gateway, "persistent.py", path) as bot:
        bot.wait_for("resumed")
        bot.wait_for("wrote: meanwhile")
        assert bot.interrupt() == 0
    assert not any("a new session" in line or "before" in line for line in bot.lines)


def test_persistent_resumes_after_a_crash(tmp_path: Path) -> None:
    path = str(tmp_path / "session.json")
    with LocalGateway(identify_interval=0, heartbeat_interval=100) as gateway:
        with Example(gateway, "persistent.py", path) as bot:
            connected(gateway)
            wait_until(lambda: os.path.exists(path), PATIENCE)
            bot.process.kill()
            bot.process.wait(PATIENCE)
        write(gateway, "meanwhile")
        with Example(gateway, "persistent.py", path) as bot:
            bot.wait_for("wrote: meanwhile")
            bot.wait_for("resumed")
            assert bot.interrupt() == 0


def test_exactly_once_stores_each_message_once_though_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "messages.db"

    def stored() -> list[str]:
        with contextlib.closing(sqlite3.connect(path)) as database:
            try:
                return [row[0] for row in database.execute("SELECT id FROM messages")]
            except sqlite3.OperationalError:  # the bot has not made the table yet
                return []

    with LocalGateway(identify_interval=0, keep_history=True) as gateway:
        traffic = gateway.traffic(rate=400)
        for _ in range(5):
            before = len(stored())
            with Example(gateway, "exactly_once.py", str(path)) as bot:
                wait_until(lambda: len(stored()) > before, PATIENCE)
                bot.process.kill()
        traffic.stop()
        session = gateway.all_sessions[0]
        resumes = session.resumes
        with Example(gateway, "exactly_once.py", str(path)) as bot:
            # Nothing may be left to store, and the bot not have begun.
            wait_until(lambda: session.resumes > resumes, PATIENCE)
            history = session.history
            issued = [event.data["id"] for event in history if event.name == "MESSAGE_CREATE"]
            wait_until(lambda: len(stored()) >= len(issued), PATIENCE)
            assert bot.interrupt() == 0
        assert len(gateway.all_sessions) == 1
    assert stored() == issued


def test_many_shards_resumes_all_of_them_after_sigterm(tmp_path: Path) -> None:
    arguments = ("many_shards.py", str(tmp_path / "sessions"))
    with LocalGateway(shards=4, max_concurrency=4, guilds=4, identify_interval=0) as gateway:
        with Example(gateway, *arguments, DISCORD_API=gateway.http_url) as bot:
            bot.wait_for("4 of 4 shards are ready")
            write(gateway, "before")
            bot.wait_for("message 1 in ")
            bot.process.terminate()
            assert bot.process.wait(PATIENCE) == 0
        write(gateway, "meanwhile")
        with Example(gateway, *arguments, DISCORD_API=gateway.http_url) as bot:
            bot.wait_for("4 of 4 shards are ready")
            bot.wait_for("message 1 in ")
            assert bot.interrupt() == 0
    assert not any("Traceback" in line or "message 2" in line for line in bot.lines)
    assert len(gateway.identifies) == 4


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return dict(json.load(response))


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_one_worker_of_gunicorn_runs_the_shard_and_the_next_one_resumes(
    options: tuple[str, ...], gateway: LocalGateway, tmp_path: Path
) -> None:
    pytest.importorskip("flask")
    pytest.importorskip("gunicorn")
    command = ("--chdir", str(ROOT / "examples"), "--bind", "127.0.0.1:0", "--workers", "2")
    environment = {"STATE_DIRECTORY": str(tmp_path), "HOME": str(tmp_path)}
    with Example(
        gateway, "-m", "gunicorn", *command, *options, "flask_gunicorn:app", **environment
    ) as server:
        session = connected(gateway).session
        server.wait_for("Listening at: ")
        line = next(line for line in server.lines if "Listening at: " in line)
        url = line.split("Listening at: ")[1].split()[0]
        write(gateway, "hello")
        wait_until(lambda: "hello" in str(get(url)["messages"]), PATIENCE)
        wait_until((tmp_path / "bot.lock.session").exists, PATIENCE)

        def holder() -> int:
            """The worker with the shard; either of the two may answer."""
            found: list[int] = []

            def asked() -> bool:
                page = get(url)
                if page["state"] == "ready":
                    found.append(int(str(page["process"])))
                return bool(found)

            wait_until(asked, PATIENCE)
            return found[0]

        killed = holder()
        os.kill(killed, signal.SIGKILL)
        write(gateway, "meanwhile")
        assert gateway.wait_for_connection(lambda it: it.session, 10).session is session
        wait_until(lambda: "meanwhile" in str(get(url)["messages"]), PATIENCE)
        assert holder() != killed
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
    assert not any("Traceback" in line for line in server.lines)
    assert gateway.all_connections[-1].close_code == 4000  # a restart would resume, too


def test_django_command_stores_messages_and_ends_at_sigterm(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    pytest.importorskip("django")
    database = str(tmp_path / "messages.sqlite3")
    for content in ("hello", "again"):  # the second time, the table is there
        with Example(gateway, "django_command.py", "runbot", DATABASE=database) as bot:
            connected(gateway)
            write(gateway, content)
            bot.wait_for(f"wrote: {content}")
            bot.process.terminate()
            assert bot.process.wait(PATIENCE) == 0
    with contextlib.closing(sqlite3.connect(database)) as stored:
        messages = stored.execute("SELECT content FROM bot_message ORDER BY id").fetchall()
    assert [content.split()[0] for (content,) in messages] == ["hello", "again"]
    assert [connection.close_code for connection in gateway.all_connections] == [1000, 1000]
    assert not any("Traceback" in line for line in bot.lines)


def test_gevent_app_serves_the_messages_of_its_shard(gateway: LocalGateway) -> None:
    pytest.importorskip("gevent")
    with Example(gateway, "gevent_app.py", PORT="0") as app:
        connected(gateway)
        write(gateway, "hello")
        app.wait_for("serving on ")
        url = next(line for line in app.lines if "serving on" in line).split()[-1]

        def get() -> dict[str, object]:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return dict(json.load(response))

        wait_until(lambda: get()["messages"], PATIENCE)
        assert get()["state"] == "ready"
        assert "hello" in str(get()["messages"])
        assert app.interrupt() == 0
    assert len(app.lines) == 1
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def window_environment(name: str, display: str | None) -> dict[str, str]:
    """What the example of a toolkit needs; the test is skipped if the machine has not got it."""
    if name in ("tkinter_app.py", "start/window.py"):
        return {"DISPLAY": needs_display(display)}
    module = {"qt_app.py": "PySide6.QtWidgets", "pygame_app.py": "pygame"}[name]
    pytest.importorskip(module, exc_type=ImportError)
    return {"QT_QPA_PLATFORM": "offscreen", "SDL_VIDEODRIVER": "dummy"}


WINDOW_EXAMPLES = ["tkinter_app.py", "qt_app.py", "pygame_app.py"]
CONVERSATION = (
    "Good morning, all of you",
    "Good morning! Has the build passed?",
    "It has, on all of them",
    "Even on the old laptop?",
    "Even there, in four minutes",
    "Then I make the tea",
    "Two cups for me, please",
)


@pytest.mark.parametrize("name", WINDOW_EXAMPLES)
def test_closing_the_window_of_an_example_ends_its_process_and_its_shard(
    gateway: LocalGateway, display: str | None, name: str
) -> None:
    environment = window_environment(name, display)
    with WindowExample(gateway, name, **environment) as app:
        connected(gateway)
        talk(gateway, *CONVERSATION)
        app.take_picture(f"{name.removesuffix('_app.py')}.png")
        status, seconds = app.close_window()
    assert status == 0
    assert not any("Traceback" in line or "shardlib" in line for line in app.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000
    # Half a second on a quiet machine; Python's own end takes some of it.
    assert seconds < 10


def test_the_example_of_qt_runs_with_pyqt6(gateway: LocalGateway, tmp_path: Path) -> None:
    if importlib.util.find_spec("PyQt6") is None:  # an import beside PySide6 would crash
        pytest.skip("PyQt6 is not installed")
    example = ROOT / "examples" / "qt_app.py"
    program = tmp_path / example.name
    program.write_text(example.read_text().replace("PySide6", "PyQt6"))
    with WindowExample(gateway, str(program), QT_QPA_PLATFORM="offscreen") as app:
        connected(gateway)
        talk(gateway, *CONVERSATION)
        status, _ = app.close_window()
    assert status == 0
    assert not any("Traceback" in line or "shardlib" in line for line in app.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


@pytest.mark.parametrize("name", WINDOW_EXAMPLES)
def test_ctrl_c_ends_an_example_with_a_window(
    gateway: LocalGateway, display: str | None, name: str
) -> None:
    with Example(gateway, name, **window_environment(name, display)) as app:
        connected(gateway)
        assert app.interrupt() == 0
    assert not any("Traceback" in line or "shardlib" in line for line in app.lines)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *(
            (name, "shardlib:Shard.start")
            for name in ("gevent_app.py", "start/window.py", *WINDOW_EXAMPLES)
        ),
        # pygame.display.set_mode() calls it, and drops what it raises.
        ("pygame_app.py", "pygame.pkgdata:getResource"),
    ],
)
def test_ctrl_c_before_the_loop_of_an_example_begins_ends_it(
    gateway: LocalGateway, display: str | None, name: str, where: str
) -> None:
    environment = {"PORT": "0"}
    if name == "gevent_app.py":
        pytest.importorskip("gevent")
    else:
        environment = window_environment(name, display)
    with EarlyInterruptedExample(gateway, name, where, **environment) as app:
        assert app.end_interrupted() == 0
    assert not any("Traceback" in line for line in app.lines)


def test_the_readme_shows_the_code_of_examples_bot() -> None:
    bot = (ROOT / "examples" / "bot.py").read_text()
    assert len(bot.splitlines()) <= 20 + 1  # and the docstring
    code = bot.split("\n", 1)[1]
    shown = "".join(f"    {line}".rstrip() + "\n" for line in code.splitlines())
    assert shown in (ROOT / "README.rst").read_text()


def test_the_readme_shows_the_heart_of_the_bot_that_answers() -> None:
    bot = (ROOT / "examples" / "start" / "questions.py").read_text()
    heart = '    @bot.on("MESSAGE_CREATE")' + bot.partition('@bot.on("MESSAGE_CREATE")')[2]
    assert heart.partition("\n\n")[0] in (ROOT / "README.rst").read_text()


def test_daemon_ends_with_sigterm_and_goes_on_with_its_session(
    gateway: LocalGateway, tmp_path: Path
) -> None:
    path = str(tmp_path / "session.json")
    for number in range(2):
        with Example(gateway, "daemon.py", path) as daemon:
            daemon.wait_for("ready, session" if number == 0 else "resumed, session")
            write(gateway, f"line {number}")
            daemon.wait_for(f"wrote: line {number}")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(PATIENCE) == 0
        assert "the session is kept" in daemon.lines[-1]


def test_legacy_handles_ten_lines_on_its_own_pool(gateway: LocalGateway) -> None:
    with Example(gateway, "legacy.py") as program:
        connected(gateway)
        for number in range(10):
            write(gateway, f"line {number}")
        assert program.process.wait(PATIENCE) == 0
        program.wait_for("lines: 10")
    assert len(program.lines) == 1


def test_prompt_answers_while_the_shard_works(gateway: LocalGateway) -> None:
    pexpect = pytest.importorskip("pexpect")
    environment = {
        **os.environ,
        "DISCORD_TOKEN": gateway.token,
        "DISCORD_GATEWAY": gateway.url,
        "PYTHONPATH": str(ROOT),
        "PYTHON_BASIC_REPL": "1",
    }
    prompt = pexpect.spawn(
        sys.executable,
        ["-i", str(ROOT / "examples" / "prompt.py")],
        env=environment,
        timeout=PATIENCE,
        encoding="utf-8",
        echo=False,
    )
    prompt.expect("<Shard 0/1 ready, .* is in the variable shard")
    prompt.expect(">>> ")
    write(gateway, "hello")
    prompt.sendline("message = next(event for event in events if event.name == 'MESSAGE_CREATE')")
    prompt.expect(">>> ")
    prompt.sendline("message.data['content']")
    prompt.expect("'hello ")
    prompt.sendline("shard.update_presence(status='idle')")
    assert connected(gateway).expect(3, PATIENCE)["d"]["status"] == "idle"
    prompt.sendline("exit()")
    prompt.expect(pexpect.EOF)
    prompt.close()
    assert prompt.exitstatus == 0


def test_the_page_of_notebooks_shows_the_cells_of_the_notebook() -> None:
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    page = (ROOT / "docs" / "notebooks.rst").read_text()
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    places = [page.find("::\n\n" + textwrap.indent(cell, "    ") + "\n") for cell in cells]
    assert -1 not in places
    assert places == sorted(places)


# Runs a notebook as Jupyter does, its first code cell twice, and prints what the cells have shown.
EXECUTE = """
import copy, json, sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
notebook.cells.insert(2, copy.deepcopy(notebook.cells[1]))
notebook.cells[2]["id"] = "again"
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
print(json.dumps([each["data"]["text/plain"] for each in outputs if "data" in each]))
"""


def test_notebook_runs_from_its_first_cell_to_its_last(gateway: LocalGateway) -> None:
    for module in ("nbclient", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", EXECUTE, str(ROOT / "examples" / "notebook.ipynb")],
        env={
            **os.environ,
            "DISCORD_TOKEN": gateway.token,
            "DISCORD_GATEWAY": gateway.url,
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    connected(gateway)
    while process.poll() is None:
        write(gateway, "hello")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    first, made, message, authors, closed = json.loads(output)
    assert made.startswith("<Shard 0/1 ready")
    assert made != first
    assert [connection.close_code for connection in gateway.all_connections] == [1000, 1000]
    assert "hello" in message
    assert authors.startswith("['")
    assert closed == "<Shard 0/1 closed>"
