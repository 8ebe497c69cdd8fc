"""QtMailbox: a mailbox whose callbacks the event loop of Qt calls."""

from __future__ import annotations

import importlib
from typing import Any

from shardlib.dispatch.mailbox import Mailbox
from shardlib.dispatch.window import WindowMailbox
from shardlib.text import describe

BINDINGS = ("PySide6", "PyQt6")

_INTERRUPTED = 130  # the exit status of a program that Ctrl-C has ended


def qt(parent: Any, maxsize: int = 10_000, overflow: str = "block") -> Mailbox:
    """Have the callbacks of shards called by the event loop of Qt, in its thread. ::

        application = QApplication([])
        bot = Shard(token, intents, dispatcher=dispatch.qt(application))

    Callbacks may use widgets as every slot may. Events that come wake the event loop; after 10
    milliseconds of callbacks the window has its turn.

    When `parent` is destroyed or the application is about to quit, no further callback is called,
    not even on_socket_closed, and the shards are disconnected, with code 1000. Quitting waits a
    tenth of a second for that, and the end of the program half a second in all. For a session that
    is to outlive the program, call ``disconnect(4000)`` and save the session in closeEvent(). A
    shard that is connected later is disconnected at once.

    An exception in a callback is logged, and told to on_socket_error. SystemExit ends the program,
    as in a slot; KeyboardInterrupt ends the event loop, with status 130.

    :param parent: a QObject of PySide6 or PyQt6, the QApplication or a window. A window that is
        closed is destroyed if it has the attribute WA_DeleteOnClose, else only hidden. This
        function must be called in the thread of the application.
    :param maxsize: callbacks that may wait, see :class:`shardlib.dispatch.Mailbox`.
    :param overflow: what happens to one more, likewise.
    :returns: the dispatcher, for any number of shards.
    :raises ValueError: if `maxsize` or `overflow` has a value that cannot be.
    :raises TypeError: if an argument has the wrong type.
    :raises RuntimeError: if `parent` lives in another thread.
    """
    for parent_class in type(parent).__mro__:
        binding = parent_class.__module__.partition(".")[0]
        if binding in BINDINGS and hasattr(parent, "destroyed"):
            return QtMailbox(
                importlib.import_module(f"{binding}.QtCore"), parent, maxsize, overflow
            )
    raise TypeError(f"parent must be a QObject of {' or '.join(BINDINGS)}, not {describe(parent)}")


class QtMailbox(WindowMailbox):
    """Wakes the event loop by an event that is posted to an object of its own.

    :param core: the module QtCore of the binding.
    :param parent: as for :func:`qt`, as are the rest.
    """

    def __init__(self, core: Any, parent: Any, maxsize: int, overflow: str) -> None:
        super().__init__(maxsize, overflow)
        if parent.thread() != core.QThread.currentThread():
            raise RuntimeError("qt() was called in another thread than that of its parent")
        self._core = core
        # No child of `parent`, which would delete it while a reader posts an event to it.
        self._receiver = _create_receiver(core, self._on_event)
        parent.destroyed.connect(self.close)
        application = core.QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)
        self.on_wake = self._wake_loop

    def _wake_loop(self) -> None:
        # Of the window's own thread, too, whose slice has left callbacks behind: Qt handles events
        # that are posted while it handles others after timers and drawing.
        event = self._core.QEvent(self._core.QEvent.Type.User)
        self._core.QCoreApplication.postEvent(self._receiver, event)

    def _on_event(self) -> None:
        try:
            self.run_slice()
        except KeyboardInterrupt:  # PySide6 would print it and go on, PyQt6 would abort
            self._core.QCoreApplication.exit(_INTERRUPTED)

    def close(self) -> None:
        super().close()
        # A cycle of references: a QObject must not be left to the garbage collection of any thread.
        self._receiver = None


def _create_receiver(core: Any, function: Any) -> Any:
    """Make a QObject that calls a function for each event that is posted to it."""

    class Receiver(core.QObject):  # type: ignore[misc]
        def event(self, event: Any) -> bool:
            if event.type() != core.QEvent.Type.User:
                return bool(super().event(event))
            function()
            return True

    return Receiver()
