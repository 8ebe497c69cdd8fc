"""Delivery and Dispatcher: callbacks on their way from the reader to another thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from shardlib.currentsession import CurrentSession
from shardlib.outstanding import Handover
from shardlib.running import Callback, LeftToParent


class Deliverer(Protocol):
    """What a delivery needs of the shard whose callbacks it calls."""

    def deliver(self, delivery: Delivery) -> None:
        """Call the callbacks of a delivery, and be done with it."""

    def drop(self, delivery: Delivery) -> None:
        """Be done with a delivery whose callbacks are not called."""

    def exit(self, delivery: Delivery, error: BaseException) -> None:
        """Close the shard because of an error that a callback of a delivery has raised."""

    def wait_for_room(self, has_room: Callable[[], bool]) -> None:
        """Block the reader until a queue has room."""

    def wake(self) -> None:
        """Let the reader look again whether a queue has room."""


class Delivery(Handover):
    """The callbacks of one event, or one ``on_socket_...`` callback, waiting to be called.

    A :class:`Dispatcher` gets each delivery once, and calls it, or :meth:`drop`\\ s it, once. One
    that gets neither holds the sequence of the saved session back for ever.

    :ivar shard: whose callbacks they are, a :class:`shardlib.Shard`.
    :ivar event: name of the event, a str; None for the shard's own callbacks, as on_socket_ready.
    :ivar data: the event's ``d``; None for the shard's own callbacks.
    :ivar alone: True if all earlier deliveries of the shard must have returned before it is called,
        and it must have returned before any later one is: of a callback about connections, of
        on_socket_batch, or of the end of the shard's life.
    :ivar can_be_dropped: True for events, and for callbacks that come as often as they do. A queue
        that is full has to take the others all the same.
    """

    __slots__ = (
        "_deliverer",
        "_unclaimed",
        "alone",
        "arguments",
        "can_be_dropped",
        "data",
        "event",
        "function",
        "listeners",
        "shard",
    )

    def __init__(
        self,
        deliverer: Deliverer,
        shard: Any,
        session: CurrentSession,
        function: str,
        arguments: tuple[Any, ...],
        *,
        event: str | None = None,
        data: Any = None,
        listeners: tuple[Callback, ...] = (),
        alone: bool = False,
        can_be_dropped: bool = True,
    ) -> None:
        super().__init__(session)
        self._deliverer = deliverer
        self._unclaimed = [True]
        self.shard = shard
        self.function = function  # name of the on_socket_* function to call, if there is one
        self.arguments = arguments  # of that function
        self.event = event
        self.data = data
        self.listeners = listeners  # to call if they still listen then
        self.alone = alone
        self.can_be_dropped = can_be_dropped

    def __repr__(self) -> str:
        return f"<Delivery {self.event or self.function or 'end'} of {self.shard!r}>"

    def claim(self) -> bool:
        """True for the first caller, also of several threads: it is to call the callbacks."""
        try:
            return self._unclaimed.pop()  # one step of C code
        except IndexError:
            return False

    def __call__(self) -> None:
        """Call the callbacks, on this thread. It returns when they have.

        What a callback raises is logged, and told to on_socket_error. SystemExit and its like close
        the shard.
        """
        try:
            self.run()
        except LeftToParent:  # a callback has forked: in the child nothing is left to do
            raise
        except BaseException as error:
            self._deliverer.exit(self, error)

    def run(self) -> None:
        """Call the callbacks, on a thread of the program's own: SystemExit and its like go up.

        :raises SystemExit: if a callback raised it. The delivery is not done with then: the session
            has it replayed, unless the program goes on and drops it.
        :raises KeyboardInterrupt: if a callback raised it, or Ctrl-C came meanwhile; likewise.
        """
        self._deliverer.deliver(self)

    def drop(self) -> None:
        """Do without the callbacks. Counted in ``stats.dropped``, and told in the log."""
        self._deliverer.drop(self)

    def wait_for_room(self, has_room: Callable[[], bool]) -> None:
        """Block the reader thread until there is room for this delivery.

        For :meth:`Dispatcher.submit` only.

        It also returns if the shard is being closed, or if a thread for which
        :meth:`Dispatcher.runs_in` is True waits for the shard: then the delivery must be taken all
        the same, or the two threads would wait for each other.

        :param has_room: looked at again after each :meth:`wake`.
        """
        self._deliverer.wait_for_room(has_room)

    def wake(self) -> None:
        """Let the reader that is in :meth:`wait_for_room` look again. Any thread; never blocks."""
        self._deliverer.wake()


class Dispatcher:
    """Where the callbacks of shards are called: the base class of those in ``shardlib.dispatch``.

    A subclass has at least :meth:`Dispatcher.submit`. One dispatcher may serve many shards.
    """

    def submit(self, delivery: Delivery) -> None:
        """Take a delivery, to have it called elsewhere. Called by the reader thread of its shard.

        The deliveries of a shard come in the order of the wire. Whatever order a dispatcher calls
        them in, it has to heed the delivery's ``alone``. What this raises is logged, and the
        delivery is dropped. While it blocks, the shard reads nothing; heartbeats go on.

        :param delivery: to be called once, or dropped.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Wake the thread that is to call what was submitted. Called by the reader thread.

        A read of the socket may bring many events. Each is submitted, and then this is called once:
        waking a thread for each costs more than the event itself.
        """

    def begin(self, shard: Any) -> None:
        """Note that a life of a shard begins. Called by its reader thread, before any delivery."""

    def end(self, shard: Any) -> None:
        """Note that a life of a shard has ended, after its last delivery was submitted.

        Called by its reader thread. Threads of the dispatcher's own end when the last shard's
        deliveries have been called.
        """

    def runs_in(self, thread: int) -> bool:
        """True if a thread calls deliveries: one that must not be waited for by itself.

        :param thread: number of the thread, as ``threading.get_ident()`` gives it.
        """
        return False

    def is_running(self) -> bool:
        """True if some thread will call the deliveries that wait, so that one may wait for them."""
        return False

    def join(self, timeout: float | None) -> None:
        """Wait until threads of the dispatcher's own, which no shard uses any more, have ended.

        :param timeout: seconds, None for no limit.
        """

    def leave_to_parent(self) -> None:
        """In a forked child: forget the deliveries and the threads, which are the parent's."""
