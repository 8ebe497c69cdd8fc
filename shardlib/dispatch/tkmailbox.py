"""TkMailbox: a mailbox whose callbacks the main loop of tkinter calls."""

from __future__ import annotations

import threading
from typing import Any

from shardlib.checks import check_methods
from shardlib.dispatch.mailbox import Mailbox
from shardlib.dispatch.window import WindowMailbox
from shardlib.waker import Waker

# Milliseconds between two looks into the mailbox on Windows, whose Tcl watches no sockets.
POLL_INTERVAL = 10

# Milliseconds until the next slice if a slice has left callbacks behind. In the meantime nothing of
# ours is ready to run, so that tkinter draws: it does so when it has nothing else to do.
PAUSE = 1

_READABLE = 2  # tkinter.READABLE, without an import of tkinter


def tk(root: Any, maxsize: int = 10_000, overflow: str = "block") -> Mailbox:
    """Have the callbacks of shards called by the main loop of tkinter, in its thread. ::

        root = tkinter.Tk()
        bot = Shard(token, intents, dispatcher=dispatch.tk(root))

    Callbacks may use widgets, as every function of a window may. Events that come wake the main
    loop; after 10 milliseconds of callbacks the window has its turn.

    When `root` is destroyed, no further callback is called, not even on_socket_closed, and the
    shards are disconnected, with code 1000. destroy() waits a tenth of a second for that, and the
    end of the program half a second in all. For a session that is to outlive the window, call
    ``disconnect(4000)`` and save the session before destroy(). A shard that is connected later is
    disconnected at once.

    An exception in a callback is logged, and told to on_socket_error. SystemExit ends mainloop(),
    which raises it, and so does KeyboardInterrupt.

    :param root: a ``tkinter.Tk`` or ``tkinter.Toplevel``. This function must be called in the
        thread that calls mainloop().
    :param maxsize: callbacks that may wait, see :class:`shardlib.dispatch.Mailbox`.
    :param overflow: what happens to one more, likewise.
    :returns: the dispatcher, for any number of shards.
    :raises ValueError: if `maxsize` or `overflow` has a value that cannot be.
    :raises TypeError: if an argument has the wrong type.
    :raises RuntimeError: if another thread has made `root`; not on Windows.
    """
    check_methods("root", root, "bindtags", "mainloop")
    watches_sockets = hasattr(root.tk, "createfilehandler")
    return (TkMailbox if watches_sockets else PollingTkMailbox)(root, maxsize, overflow)


class _AnyTkMailbox(WindowMailbox):
    """What both kinds of mailbox for tkinter have in common.

    They call Tcl directly: tkinter would print a KeyboardInterrupt of a callback, and go on.
    """

    def __init__(self, root: Any, maxsize: int, overflow: str) -> None:
        super().__init__(maxsize, overflow)
        self._tk = root.tk
        self._timer: str | None = None
        self._name = f"shardlib-{id(self)}"  # of Tcl commands and of a binding tag
        self._watch()
        self._tk.createcommand(f"{self._name}-timer", self._on_timer)
        self._tk.createcommand(f"{self._name}-destroyed", self.close)
        # A tag of its own: a program that binds <Destroy> to its window replaces what is bound.
        self._tk.call("bind", self._name, "<Destroy>", f"{self._name}-destroyed")
        root.bindtags((*root.bindtags(), self._name))

    def _watch(self) -> None:
        """Have slices run from now on."""
        raise NotImplementedError

    def _unwatch(self) -> None:
        """Undo :meth:`_watch`."""

    def _set_timer(self, milliseconds: int) -> None:
        if self._timer is None:
            self._timer = self._tk.call("after", milliseconds, f"{self._name}-timer")

    def _on_timer(self) -> None:
        self._timer = None
        self.run_slice()

    def close(self) -> None:
        if not self._is_closed:
            super().close()
            if self._timer is not None:
                self._tk.call("after", "cancel", self._timer)
            self._tk.call("bind", self._name, "<Destroy>", "")
            self._tk.deletecommand(f"{self._name}-timer")
            self._tk.deletecommand(f"{self._name}-destroyed")
            self._unwatch()
            # If the garbage collection of another thread deleted Tcl, that would end the process.
            self._tk = None


class TkMailbox(_AnyTkMailbox):
    """Wakes the main loop by a byte in a socket that Tcl watches.

    ``event_generate()`` from another thread would block that thread while the window is busy.
    """

    def _watch(self) -> None:
        self._waker = Waker()
        try:
            self._tk.createfilehandler(self._waker.fileno(), _READABLE, self._on_readable)
        except BaseException:
            self._waker.close()
            raise
        self.on_wake = self._wake_loop

    def _wake_loop(self) -> None:
        if self.runs_in(threading.get_ident()):
            self._set_timer(PAUSE)  # a slice has left callbacks behind
        else:
            self._waker.wake()

    def _on_readable(self, file: object, mask: int) -> None:
        self._waker.clear()
        self.run_slice()

    def _unwatch(self) -> None:
        self._tk.deletefilehandler(self._waker.fileno())
        self._waker.close()  # no reader wakes it any more


class PollingTkMailbox(_AnyTkMailbox):
    """Looks whether callbacks wait, a hundred times a second."""

    def _watch(self) -> None:
        self._set_timer(POLL_INTERVAL)

    def _on_timer(self) -> None:
        try:
            super()._on_timer()
        finally:
            if not self._is_closed:
                self._set_timer(PAUSE if len(self) else POLL_INTERVAL)
