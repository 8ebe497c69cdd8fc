"""Callbacks in the loop of a window, and shards that are closed with it.

Each test runs with tkinter, as on Linux and macOS and as on Windows, and with Qt.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardlib import Shard, ShardClosed, ShardState, dispatch
from shardlib.dispatch.tkmailbox import PollingTkMailbox, TkMailbox
from shardlib.dispatch.window import WindowMailbox
from shardlib.testing import LocalGateway
from tests.shards import make_gateway, make_shard
from tests.support import AT_ONCE, in_background, wait_until
from tests.windows import (
    PATIENCE,
    QT_API,
    PolledTkWindow,
    QtWindow,
    TkWindow,
    Window,
    needs_display,
)

ROOT = Path(__file__).parent.parent
NO_CLOSE = 60.0  # seconds, a close_timeout that nothing in a test waits for


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def make_window(kind: str, display: str | None) -> Window:
    if kind == "qt":
        pytest.importorskip(f"{QT_API}.QtWidgets", exc_type=ImportError)
        return QtWindow()
    return (TkWindow if kind == "tk" else PolledTkWindow)(needs_display(display))


@pytest.fixture(params=["tk", "tk polled", "qt"])
def window(request: pytest.FixtureRequest, display: str | None) -> Iterator[Window]:
    window = make_window(request.param, display)
    with closing(window):
        yield window


@pytest.fixture
def tk_window(display: str | None) -> Iterator[TkWindow]:
    window = make_window("tk", display)
    assert isinstance(window, TkWindow)
    with closing(window):
        yield window


@pytest.fixture
def qt_window() -> Iterator[QtWindow]:
    window = make_window("qt", None)
    assert isinstance(window, QtWindow)
    with closing(window):
        yield window


class closing:
    """Closes a window after a test, unless the test has done so."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        try:
            self._window.close()
        except Exception as error:  # TclError, or RuntimeError of a deleted QObject
            assert "destroyed" in str(error) or "deleted" in str(error)


def connect(gateway: LocalGateway, window: Window, *arguments: Any, **options: Any) -> Shard:
    """A shard that is READY, whose callbacks the window's loop calls."""
    shard = make_shard(dispatcher=window.make_mailbox(*arguments), **options)
    shard.connect(gateway.url)
    shard.wait_until_ready(PATIENCE)
    return shard


def type_in(gateway: LocalGateway, count: int) -> None:
    """Dispatch events with the numbers from 0."""
    for number in range(count):
        gateway.dispatch("TYPING_START", {"number": number})


def test_callbacks_wake_the_loop_and_run_in_its_thread_in_order(
    gateway: LocalGateway, window: Window
) -> None:
    shard = connect(gateway, window)
    numbers, threads = [], set()

    @shard.on("TYPING_START")
    def typing(shard: Shard, data: dict[str, int]) -> None:
        numbers.append(data["number"])
        threads.add(threading.current_thread())
        if data["number"] in (299, 300):
            window.quit()

    type_in(gateway, 300)
    window.run()
    assert numbers == list(range(300))
    assert threads == {threading.current_thread()}
    # The loop sleeps now, with no timer in the next seconds, but that of the polled window.
    sender = threading.Timer(0.2, gateway.dispatch, ("TYPING_START", {"number": 300}))
    sender.start()
    window.run()
    sender.join()
    assert numbers[-1] == 300
    shard.disconnect()


def test_the_loop_has_its_turn_while_callbacks_wait(gateway: LocalGateway, window: Window) -> None:
    shard = connect(gateway, window)
    show = window.count_drawing()
    window.run_for(50)
    calls: list[int] = []

    @shard.on("TYPING_START")
    def typing(shard: Shard, data: dict[str, int]) -> None:
        time.sleep(0.005)
        calls.append(data["number"])
        show("x" * (data["number"] % 30))

    timers: list[int] = []

    def timer() -> None:
        timers.append(len(calls))
        window.after(50, timer)

    def had_its_turn() -> bool:
        return len([done for done in timers if done > 0]) >= 5 and window.drawn >= 5

    type_in(gateway, 1000)
    wait_until(lambda: shard.stats.events.get("TYPING_START") == 1000)
    window.drawn = 0
    window.after(50, timer)
    window.run_until(lambda: had_its_turn() or len(calls) == 1000)
    shard.disconnect()
    # Within five seconds or more of callbacks without a gap: a busy machine draws late.
    assert had_its_turn() and len(calls) < 1000


def test_the_window_disconnects_amid_500_events_a_second(
    gateway: LocalGateway, window: Window
) -> None:
    shard = connect(gateway, window, close_timeout=NO_CLOSE)
    calls: list[int] = []
    shard.on("TYPING_START", lambda shard, data: calls.append(1))
    gateway.traffic(500.0, {"TYPING_START": 1})
    took: list[float] = []

    def press_button() -> None:
        start = time.monotonic()
        shard.disconnect()
        took.append(time.monotonic() - start)
        window.quit()

    def press_button_once_busy() -> None:
        window.after(0, press_button) if len(calls) > 100 else window.after(
            5, press_button_once_busy
        )

    press_button_once_busy()
    window.run()
    assert took[0] < NO_CLOSE / 10
    assert shard.state is ShardState.CLOSED
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 1000


def test_wait_for_in_a_button_ends_though_the_mailbox_is_full(
    gateway: LocalGateway, window: Window
) -> None:
    shard = connect(gateway, window, 2)
    calls: list[int] = []
    shard.on("TYPING_START", lambda shard, data: calls.append(data["number"]))
    # The first wait of the window's thread, which has run no callback yet.
    sender = in_background(type_in, gateway, 50)
    found = shard.wait_for("TYPING_START", lambda data: data["number"] == 49, PATIENCE)
    assert found["number"] == 49
    sender.result(PATIENCE)
    window.run_until(lambda: len(calls) == 50)

    def press_button() -> None:
        sender = in_background(type_in, gateway, 50)
        shard.wait_for("TYPING_START", lambda data: data["number"] == 49, PATIENCE)
        sender.result(PATIENCE)
        window.quit()

    window.after(0, press_button)
    window.run()
    window.run_until(lambda: len(calls) == 100)
    assert calls == [*range(50), *range(50)]
    shard.disconnect()


def test_closing_the_window_closes_its_shards_and_calls_nothing_more(
    gateway: LocalGateway, window: Window
) -> None:
    calls: list[str] = []
    mailbox = window.make_mailbox()
    shards = [make_shard(dispatcher=mailbox, close_timeout=NO_CLOSE) for _ in range(2)]
    for shard in shards:
        shard.on_socket_closed = lambda shard, error: calls.append("closed")
        shard.on("TYPING_START", lambda shard, data: calls.append("typing"))
        shard.connect(gateway.url)
        shard.wait_until_ready(PATIENCE)
    window.run_for(20)
    type_in(gateway, 10)
    wait_until(lambda: all(shard.stats.events.get("TYPING_START") == 10 for shard in shards))
    start = time.monotonic()
    window.close()
    assert time.monotonic() - start < 15
    for shard in shards:
        # Another thread does not wait for callbacks that are never called.
        in_background(shard.disconnect).result(PATIENCE)
        assert shard.state is ShardState.CLOSED
        assert shard.stats.dropped == 0
    assert [each.wait_closed(PATIENCE) for each in gateway.all_connections] == [1000, 1000]
    assert calls == []


def test_closing_the_window_waits_for_no_peer(gateway: LocalGateway, window: Window) -> None:
    gateway.inject(instead_of="close", connections=None)
    mailbox = window.make_mailbox()
    shard = make_shard(dispatcher=mailbox, close_timeout=PATIENCE)
    calls: list[str] = []
    shard.on_socket_closed = lambda shard, error: calls.append("closed")
    shard.connect(gateway.url)
    shard.wait_until_ready(PATIENCE)
    start = time.monotonic()
    window.close()
    assert time.monotonic() - start < AT_ONCE
    assert shard.state is ShardState.CLOSING
    wait_until(lambda: gateway.all_connections[0].close_code)
    gateway.all_connections[0].proceed()
    shard.join(PATIENCE)
    assert mailbox.run_pending() == 0
    assert calls == []


def test_closing_the_window_ends_an_attempt_to_connect(
    gateway: LocalGateway, window: Window
) -> None:
    gateway.inject(instead_of="upgrade", connections=None)
    shard = make_shard(dispatcher=window.make_mailbox(), connect_timeout=NO_CLOSE)
    shard.start(gateway.url)
    wait_until(lambda: gateway.all_connections)
    window.close()
    shard.join(PATIENCE)
    assert shard.state is ShardState.CLOSED


def test_a_shard_is_not_connected_for_a_window_that_is_closed(
    gateway: LocalGateway, window: Window
) -> None:
    shard = make_shard(dispatcher=window.make_mailbox())
    window.close()
    with pytest.raises(ShardClosed):
        shard.connect(gateway.url)
    assert gateway.all_connections == []


def test_a_window_holds_no_shard_that_has_closed(gateway: LocalGateway, window: Window) -> None:
    mailbox = window.make_mailbox()
    shard = make_shard(dispatcher=mailbox)
    shard.connect(gateway.url)
    assert isinstance(mailbox, WindowMailbox)
    assert list(mailbox._shards) == [shard]
    shard.disconnect()
    assert list(mailbox._shards) == []


def test_a_failing_callback_is_told_and_the_loop_goes_on(
    gateway: LocalGateway, window: Window, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []
    shard = connect(gateway, window, on_socket_error=lambda shard, error: errors.append(error))
    calls: list[int] = []

    @shard.on("TYPING_START")
    def typing(shard: Shard, data: dict[str, int]) -> None:
        calls.append(1 // data["number"])

    type_in(gateway, 2)
    window.run_until(lambda: calls)
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert "ZeroDivisionError" in caplog.text
    shard.disconnect()


@pytest.mark.parametrize("kind", ["tk", "tk polled"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_a_program_comes_out_of_mainloop(
    gateway: LocalGateway, display: str | None, kind: str, error: BaseException
) -> None:
    window = make_window(kind, display)
    with closing(window):
        shard = connect(gateway, window)

        @shard.on("TYPING_START")
        def typing(shard: Shard, data: dict[str, int]) -> None:
            if data["number"] == 0:
                raise error

        type_in(gateway, 2)
        with pytest.raises(type(error)) as caught:
            window.run()
        assert caught.value is error
        # The program goes on all the same, and so do the callbacks.
        more: list[int] = []
        shard.on("TYPING_START", lambda shard, data: more.append(1))
        gateway.dispatch("TYPING_START", {"number": 1})
        window.run_until(lambda: more)
        shard.disconnect()


def test_callbacks_end_when_one_destroys_the_window(
    gateway: LocalGateway, tk_window: TkWindow
) -> None:
    shard = connect(gateway, tk_window, 5)
    calls: list[int] = []

    @shard.on("TYPING_START")
    def typing(shard: Shard, data: dict[str, int]) -> None:
        calls.append(data["number"])
        tk_window.close()

    sender = in_background(type_in, gateway, 50)
    tk_window.root.mainloop()
    sender.result(PATIENCE)
    shard.join(PATIENCE)
    assert calls == [0]


def test_a_binding_of_the_programs_to_destroy_replaces_none_of_ours(
    gateway: LocalGateway, tk_window: TkWindow
) -> None:
    shard = connect(gateway, tk_window)
    destroyed: list[object] = []
    tk_window.root.bind("<Destroy>", destroyed.append)
    tk_window.close()
    shard.join(PATIENCE)
    assert len(destroyed) == 1


@pytest.mark.parametrize("polled", [False, True])
def test_a_second_window_of_a_program_closes_its_own_shards_only(
    gateway: LocalGateway, tk_window: TkWindow, polled: bool
) -> None:
    import tkinter

    errors: list[str] = []
    tk_window.root.tk.createcommand("bgerror", errors.append)
    second = tkinter.Toplevel(tk_window.root)
    frame = tkinter.Frame(second)
    make = PollingTkMailbox if polled else TkMailbox
    shard = make_shard(dispatcher=make(second, 10_000, "block"))
    shard.connect(gateway.url)
    shard.wait_until_ready(PATIENCE)
    other = connect(gateway, tk_window)
    shard.on("TYPING_START", lambda shard, data: time.sleep(0.02))
    type_in(gateway, 3)
    wait_until(lambda: shard.stats.events.get("TYPING_START") == 3)
    tk_window.run_for(25)  # so that a timer is set, by a slice that has left callbacks behind
    frame.destroy()
    assert shard.state is ShardState.READY
    second.destroy()
    tk_window.run_for(50)
    shard.join(PATIENCE)
    assert other.state is ShardState.READY
    assert errors == []  # of a timer that was left behind
    other.disconnect()


def test_another_thread_than_the_windows_cannot_make_its_mailbox(window: Window) -> None:
    if isinstance(window, PolledTkWindow):
        pytest.skip("Tcl lets every thread set timers")
    made = in_background(window.make_mailbox)
    window.run_until(made.done)
    assert isinstance(made.exception(PATIENCE), RuntimeError)
    window.close()  # which finds nothing to undo


@pytest.mark.parametrize("make", [dispatch.tk, dispatch.qt])
def test_what_is_no_window_is_refused(make: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="(root|parent) must .*'a window'"):
        make("a window")


def test_the_arguments_of_the_mailbox_are_checked(tk_window: TkWindow) -> None:
    with pytest.raises(ValueError, match="overflow"):
        dispatch.tk(tk_window.root, overflow="explode")
    with pytest.raises(TypeError, match="maxsize"):
        dispatch.tk(tk_window.root, maxsize=1.5)  # type: ignore[arg-type]


def test_the_dispatchers_import_no_toolkit() -> None:
    program = (
        "import sys, shardlib.dispatch\n"
        "sys.exit(bool({'tkinter', 'PySide6', 'PyQt6'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


QT_PROGRAM = """
import sys
from tests.shards import make_shard
from tests.windows import QtWindow
from shardlib import dispatch

window = QtWindow()
shard = make_shard(dispatcher=dispatch.qt(window.application))

@shard.on("READY")
def ready(shard, data):
    {body}

shard.connect(sys.argv[1])
window.after(15_000, lambda: window.application.exit(99))
print("ended with", window.application.exec(), shard.state, flush=True)
"""


@pytest.mark.parametrize(
    "body, output, status, code",
    [
        ("window.application.quit()", "ended with 0 ShardState.CLOSED\n", 0, 1000),
        ("raise KeyboardInterrupt", "ended with 130 ShardState.CLOSED\n", 0, 1000),
        ("raise SystemExit(3)", "", 3, 1000),
    ],
)
def test_an_application_of_qt_that_ends_closes_its_shards(
    gateway: LocalGateway, body: str, output: str, status: int, code: int
) -> None:
    pytest.importorskip(f"{QT_API}.QtWidgets", exc_type=ImportError)
    program = subprocess.run(
        [sys.executable, "-c", QT_PROGRAM.format(body=body), gateway.url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert (program.stdout, program.returncode) == (output, status)
    assert gateway.all_connections[0].wait_closed(PATIENCE) == code


@pytest.mark.timeout(600)
def test_pyqt6_does_as_pyside6(request: pytest.FixtureRequest) -> None:
    """In a process of its own: the libraries of both in one would crash."""
    if QT_API == "PyQt6" or importlib.util.find_spec("PyQt6") is None:
        pytest.skip("PyQt6 is not installed, or is tested already")
    program = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "qt"],
        cwd=ROOT,
        env={**os.environ, "QT_API": "PyQt6"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.returncode == 0, program.stdout
    assert "passed" in program.stdout and "skipped" not in program.stdout.replace("1 skipped", "")
