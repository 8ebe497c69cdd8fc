"""Windows of tkinter and Qt, on a display that nobody sees, behind one interface."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shardlib import dispatch
from shardlib.dispatch import Mailbox
from shardlib.dispatch.tkmailbox import PollingTkMailbox

# The binding of Qt to test, as other tools name it. Both in one process would crash.
QT_API = os.environ.get("QT_API", "PySide6")

PATIENCE = 60.0


_every_tk: list[Any] = []


@contextlib.contextmanager
def virtual_display() -> Iterator[str | None]:
    """Run an X display without a screen, if Xvfb is installed. Else the user's is used."""
    if importlib.util.find_spec("_tkinter") is None or shutil.which("Xvfb") is None:
        yield os.environ.get("DISPLAY")
        return
    reading, writing = os.pipe()
    xvfb = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-nolisten", "tcp", "-screen", "0", "1024x768x24"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with xvfb, os.fdopen(reading) as numbers:
        try:
            number = numbers.readline().strip()
            assert number, "Xvfb did not start"
            yield f":{number}"
        finally:
            xvfb.terminate()


def needs_display(display: str | None) -> str:
    """The name of the display that the fixture has found; else the test is skipped."""
    pytest.importorskip("tkinter")
    if display is None:
        pytest.skip("tkinter needs a display: Xvfb is not installed, and DISPLAY is not set")
    return display


def open_tk(display: str) -> Any:
    """Open a window of tkinter, and keep the object for as long as the process lives.

    If the garbage collection of another thread deleted one, that would end the process.
    """
    import tkinter

    _every_tk.append(tkinter.Tk(screenName=display))
    return _every_tk[-1]


class Window:
    """A window that is open, and the loop of its toolkit."""

    def make_mailbox(self, maxsize: int = 10_000) -> Mailbox:
        """The mailbox of this window, as shardlib.dispatch makes it."""
        raise NotImplementedError

    def after(self, milliseconds: int, function: Callable[[], object]) -> None:
        """Call a function later, by a timer of the toolkit's."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the loop until :meth:`quit`; fail if that does not come."""
        raise NotImplementedError

    def quit(self) -> None:
        """End the loop. The window stays open."""
        raise NotImplementedError

    def run_until(self, condition: Callable[[], object]) -> None:
        """Run the loop until a condition holds, which a timer looks at."""

        def look() -> None:
            if condition():
                self.quit()
            else:
                self.after(5, look)

        self.after(0, look)
        self.run()

    def run_for(self, milliseconds: int) -> None:
        """Run the loop for a time, to see that something does not happen."""
        self.after(milliseconds, self.quit)
        self.run()

    def count_drawing(self) -> Callable[[str], object]:
        """Show a text in the window; `drawn` counts how often the toolkit has drawn one."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the window, as its user would, and have it destroyed."""
        raise NotImplementedError

    drawn = 0


class TkWindow(Window):
    """A window of tkinter.

    :param display: name of the display.
    """

    def __init__(self, display: str) -> None:
        self.root = open_tk(display)

    def make_mailbox(self, maxsize: int = 10_000) -> Mailbox:
        return dispatch.tk(self.root, maxsize)

    def after(self, milliseconds: int, function: Callable[[], object]) -> None:
        self.root.after(milliseconds, function)

    def run(self) -> None:
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            self.root.quit()

        timer = self.root.after(round(PATIENCE * 1000), end)
        self.root.mainloop()
        assert not late, "nothing has ended the main loop"
        self.root.after_cancel(timer)

    def quit(self) -> None:
        self.root.quit()

    def count_drawing(self) -> Callable[[str], object]:
        import tkinter

        label = tkinter.Label(self.root)
        label.pack()
        # The label has a new size only when tkinter has laid it out, which it does when idle.
        label.bind("<Configure>", lambda event: setattr(self, "drawn", self.drawn + 1))
        return lambda text: label.configure(text=text)

    def close(self) -> None:
        self.root.destroy()


class PolledTkWindow(TkWindow):
    """A window of tkinter whose Tcl watches no sockets, as on Windows."""

    def make_mailbox(self, maxsize: int = 10_000) -> Mailbox:
        return PollingTkMailbox(self.root, maxsize, "block")


class QtWindow(Window):
    """A window of Qt, which is drawn into memory."""

    application: Any = None  # at most one in a process, for as long as that lives

    def __init__(self) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        self.core = importlib.import_module(f"{QT_API}.QtCore")
        self.widgets = importlib.import_module(f"{QT_API}.QtWidgets")
        if QtWindow.application is None:
            QtWindow.application = self.widgets.QApplication([])
            QtWindow.application.setQuitOnLastWindowClosed(False)
        self.widget = self.widgets.QWidget()
        self.widget.setAttribute(self.core.Qt.WidgetAttribute.WA_DeleteOnClose)
        self.widget.show()
        # Ending the loop of the application would close all mailboxes.
        self.loop = self.core.QEventLoop()

    def make_mailbox(self, maxsize: int = 10_000) -> Mailbox:
        return dispatch.qt(self.widget, maxsize)

    def after(self, milliseconds: int, function: Callable[[], object]) -> None:
        self.core.QTimer.singleShot(milliseconds, function)

    def run(self) -> None:
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            self.loop.quit()

        timer = self.core.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(end)
        timer.start(round(PATIENCE * 1000))
        self.loop.exec()
        timer.stop()
        assert not late, "nothing has ended the event loop"

    def quit(self) -> None:
        self.loop.quit()

    def count_drawing(self) -> Callable[[str], object]:
        window = self

        class Label(self.widgets.QLabel):  # type: ignore[misc, name-defined]
            def paintEvent(self, event: Any) -> None:
                window.drawn += 1
                super().paintEvent(event)

        self.label = Label(self.widget)
        self.label.resize(200, 40)
        self.label.show()
        return lambda text: self.label.setText(text)

    def close(self) -> None:
        self.widget.close()
        kind = self.core.QEvent.Type.DeferredDelete
        self.core.QCoreApplication.sendPostedEvents(
            self.widget, kind if QT_API == "PyQt6" else kind.value
        )
