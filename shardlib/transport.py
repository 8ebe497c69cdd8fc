"""Transport: one TCP or TLS byte stream that several threads may use without harm.

Two threads must never be inside one OpenSSL connection at once: a heartbeat sent while the reader
is inside ``recv`` corrupts the connection, or deadlocks, depending on the versions. The rule kept
here: the socket never blocks; a thread that finds it not ready waits for it without ``_io_lock``,
and makes the call that moves bytes with it. So that lock is held for microseconds only.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import threading
import traceback
from collections.abc import Callable

from shardlib.deadline import Deadline
from shardlib.errors import SendTimeout
from shardlib.waker import Waker

TIME_TO_LEAVE = 0.5  # seconds for a thread that sends on a connection that is being closed

RECEIVE_SIZE = 65536  # bytes asked of the socket at once: many of the Gateway's messages


def wait_until_ready(
    file_descriptor: int, writing: bool, timeout: float | None, waker: Waker | None = None
) -> bool:
    """Wait until a descriptor can be read (or written), its peer has gone, or a waker wakes.

    ``select.poll`` is looked up at each call, so that gevent's is found however late it patches,
    and preferred to ``select.select``, which cannot watch descriptors above 1023.

    :param timeout: seconds; None waits without end.
    :param waker: watched as well.
    :returns: False if the time ran out.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(file_descriptor, select.POLLOUT if writing else select.POLLIN)
        if waker is not None:
            poll.register(waker.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout is None else _milliseconds(timeout)))
    reading, written = ([], [file_descriptor]) if writing else ([file_descriptor], [])
    if waker is not None:
        reading.append(waker.fileno())
    return any(select.select(reading, written, [file_descriptor], timeout))


def _milliseconds(timeout: float) -> int:
    """Seconds as ``poll()`` takes them.

    Rounded up: half a millisecond rounded down to none would turn a wait into a spin.
    """
    return math.ceil(timeout * 1000)


def _wrap(sock: socket.socket, context: ssl.SSLContext, server_hostname: str) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(
            sock, server_hostname=server_hostname, do_handshake_on_connect=False
        )
    except BaseException as error:
        # Where the peer was faster, and has reset the connection, Python before 3.13 drops the
        # socket that it has just made, open. Only the frames of the error know it.
        for frame, _ in traceback.walk_tb(error.__traceback__):
            abandoned = frame.f_locals.get("self")
            if isinstance(abandoned, ssl.SSLSocket):
                abandoned.close()
        raise


class StreamBroken(ConnectionAbortedError):
    """The stream has ended: the system says so, or this side has ended it.

    An OSError that is none of these was raised by a signal handler: the user's alarm, perhaps.
    """


class Transport:
    """A connected stream of bytes.

    One thread, the shard's reader, calls :meth:`receive`, :meth:`receive_unless_woken` and
    :meth:`close`; any thread may call the other methods.

    :param sock: a connected TCP socket. The transport owns it from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        # Guards every call into the socket and the waker. Reentrant, because a signal handler of
        # the user's may abort or wake while the main thread is in here; no handler runs inside the
        # C call itself.
        self._io_lock = threading.RLock()
        # Held while a whole frame is written, so that frames don't mix. Taken with a deadline.
        # Reentrant for its release(), which refuses a thread that does not own the lock: so it may
        # be called whether or not Ctrl-C came before the lock was taken.
        self._send_lock = threading.RLock()
        self._sending = False  # under _send_lock; True if a finaliser comes in the middle of a send
        self._aborted = False
        self._closed = False
        self._woken = False  # under _io_lock: wake() was called, and the reader has not seen it
        self._waiting_to_read = False
        # For the reader: its last read left nothing in TCP, and nothing decrypted in TLS.
        self._drained = False
        self._pending: Callable[[], int] = int  # bytes that TLS has decrypted, and holds: none
        # What the reader waits with, and the type whose object it is.
        self._poll: Callable[[int | None], object]
        self._poll_type: object = None
        self.bytes_received = 0
        self._waker = Waker()  # last: whatever fails before leaves no sockets open

    @property
    def aborted(self) -> bool:
        """True once :meth:`abort` was called."""
        return self._aborted

    @property
    def socket(self) -> socket.socket:
        """The socket itself, a :class:`ssl.SSLSocket` after :meth:`start_tls`."""
        return self._socket

    def start_tls(self, context: ssl.SSLContext, server_hostname: str, deadline: Deadline) -> None:
        """Shake hands for TLS. Called by the reader, before any other thread sends.

        :raises ssl.SSLError: if the peer's certificate or its answers are not acceptable.
        :raises TimeoutError: if the handshake is not done in time.
        """
        with self._io_lock:
            if self._aborted:
                raise ConnectionAbortedError("the connection attempt was given up")
            self._socket = _wrap(self._socket, context, server_hostname)
            self._pending = self._socket.pending
        while True:
            with self._io_lock:
                try:
                    self._socket.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    writing = False
                except ssl.SSLWantWriteError:
                    writing = True
            if not wait_until_ready(self._socket.fileno(), writing, deadline.remaining()):
                raise TimeoutError("the TLS handshake was not finished in time")

    def receive(self, deadline: Deadline) -> bytes:
        """As :meth:`receive_unless_woken`, but :meth:`wake` ends no wait, and is forgotten.

        So this is for what comes before the connection is used and after, when no thread wakes it.
        """
        while (data := self.receive_unless_woken(deadline)) is None:
            pass
        return data

    def receive_unless_woken(self, deadline: Deadline) -> bytes | None:
        """Some bytes, as many as are there; b"" at the end of the stream. For the reader alone.

        :param deadline: until when to wait.
        :returns: None if :meth:`wake` was called.
        :raises TimeoutError: if nothing came in time.
        :raises OSError: if the connection broke.
        """
        lock, writing = self._io_lock, False
        while True:
            # After a read that took all there was, recv() would fail: the wait comes first.
            if self._drained:
                timeout = deadline.remaining()
                self._waiting_to_read = True
                try:
                    ready = (
                        wait_until_ready(self._socket.fileno(), True, timeout, self._waker)
                        if writing
                        else self._wait_to_read(timeout)
                    )
                finally:
                    self._waiting_to_read = False
                if not ready:
                    raise TimeoutError("nothing was received in time")
            try:
                # A `with` statement takes three times as long. In here: Ctrl-C may come before the
                # next line; with gevent, the reader is on the main thread.
                lock.acquire()
                if self._woken:
                    self._woken = False
                    self._waker.clear()
                    return None
                try:
                    data = self._socket.recv(RECEIVE_SIZE)
                except (BlockingIOError, ssl.SSLWantReadError):
                    self._drained, writing = True, False
                except ssl.SSLWantWriteError:  # TLS has an answer of its own to send first
                    self._drained, writing = True, True
                else:
                    self.bytes_received += len(data)
                    # TLS reads a record as a whole, and hands over what was asked for.
                    self._drained = len(data) < RECEIVE_SIZE and not self._pending()
                    return data
            finally:
                try:
                    lock.release()
                except RuntimeError:
                    pass  # it was not taken

    def _wait_to_read(self, timeout: float | None) -> bool:
        """As :func:`wait_until_ready`, with a poll object that is kept for the next event."""
        try:
            poll_type = select.poll
        except AttributeError:  # Windows has none
            return wait_until_ready(self._socket.fileno(), False, timeout, self._waker)
        if poll_type is not self._poll_type:  # the first time, or gevent has patched it since
            watched = poll_type()
            watched.register(self._socket.fileno(), select.POLLIN)
            watched.register(self._waker.fileno(), select.POLLIN)
            self._poll, self._poll_type = watched.poll, poll_type
        poll = self._poll
        return bool(poll(None if timeout is None else _milliseconds(timeout)))

    def wake(self) -> None:
        """End the wait of :meth:`receive_unless_woken`, this one or the next. Any thread."""
        with self._io_lock:
            if not self._closed:
                self._woken = True
                self._waker.wake()

    def is_idle(self) -> bool:
        """True if the reader is waiting and nothing is there for it to read."""
        with self._io_lock:  # the reader takes bytes under it, so none is in between
            if self._closed or not self._waiting_to_read:
                return False
            return not wait_until_ready(self._socket.fileno(), False, 0)

    def send(
        self,
        data: bytes,
        deadline: Deadline,
        *,
        admit: Callable[[], float] | None = None,
        sent: Callable[[], object] | None = None,
    ) -> float:
        """Write all of `data`, in one piece as seen by the peer. Blocks until `deadline`.

        :param admit: asked when it is this payload's turn: 0.0 lets it pass, a number of seconds
            does not.
        :param sent: called once all is written, and before anything else is: so what it does for
            several threads happens in the order of the wire.
        :returns: 0.0, or the seconds that `admit` gave, and then nothing was sent.
        :raises SendTimeout: if it was not written in time. What was begun cannot be taken back,
            and nothing sensible could follow it, so then the connection is aborted too.
        :raises StreamBroken: if the connection broke, or is closed.
        """
        begun = owner = False
        try:
            timeout = deadline.remaining()
            if not self._send_lock.acquire(timeout=-1 if timeout is None else timeout):
                raise SendTimeout(
                    "nothing was sent: another thread's payload has been waiting all the time for "
                    "the peer to take it; the network or the Gateway may be down"
                )
            if self._sending:
                raise SendTimeout(
                    "nothing was sent: the payload that this thread is sending is not finished"
                )
            owner = self._sending = True  # in this order: Ctrl-C may come in between
            self._wait_to_send(begun, deadline)
            if admit is not None and (wait := admit()):
                return wait
            unsent = memoryview(data)
            begun = True
            while unsent:
                with self._io_lock:
                    if self._aborted:
                        raise StreamBroken("the connection is closed")
                    try:
                        unsent = unsent[self._socket.send(unsent) :]
                        continue
                    except (BlockingIOError, ssl.SSLWantWriteError):
                        writing = True
                    except ssl.SSLWantReadError:
                        writing = False
                self._wait_to_send(begun, deadline, writing)
            if sent is not None:
                sent()
            return 0.0
        except (StreamBroken, SendTimeout):
            raise  # what the peer has said before may be read yet
        except BaseException as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise StreamBroken(f"the connection broke: {error}") from error
            if begun:  # Ctrl-C, and perhaps half of the data is out: nothing could follow that
                self.abort()
            raise
        finally:
            if owner:
                self._sending = False
            try:
                self._send_lock.release()
            except RuntimeError:
                pass  # it was not taken

    def _wait_to_send(self, begun: bool, deadline: Deadline, writing: bool = True) -> None:
        with self._io_lock:
            if self._aborted:
                raise StreamBroken("the connection is closed")
            # The number stays ours while we wait for it without the lock: close() needs the
            # send lock, which this thread holds.
            file_descriptor = self._socket.fileno()
        if wait_until_ready(file_descriptor, writing, deadline.remaining()):
            return
        if begun:
            self.abort()
            raise SendTimeout(
                "the payload was cut off: the peer stopped taking bytes; the connection is given up"
            )
        raise SendTimeout("nothing was sent: the peer takes no bytes; the network may be down")

    def abort(self) -> None:
        """End the stream at once, without a word to the peer; wakes every thread that waits for it.

        Any thread may call it, at any time; it needs no lock that is held during a wait. It shuts
        the TCP socket down beneath TLS: ``SSLSocket.shutdown`` would take the TLS object away from
        a thread that is using it, and the rest of a frame would go out in clear.
        """
        with self._io_lock:
            if self._aborted:
                return
            try:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                pass  # the peer was faster
            self._aborted = True  # afterwards: Ctrl-C in between must not leave the socket open

    def leave_to_parent(self) -> None:
        """Let go of the socket without a word on it: it is the parent's. In a forked child.

        The TLS object is left alone: in the parent, another thread may have been inside it.
        """
        # Threads that the child does not have may have held the locks.
        self._io_lock = threading.RLock()
        self._send_lock = threading.RLock()
        if not self._closed:
            self._aborted = self._closed = True
            os.close(socket.socket.detach(self._socket))
            self._waker.close()

    def close(self) -> None:
        """Abort, and give the socket back to the system. For the reader, which owns it."""
        self.abort()
        # abort() woke the senders, which leave at once unless a signal handler holds one up.
        free = self._send_lock.acquire(timeout=TIME_TO_LEAVE)
        try:
            with self._io_lock:
                self._closed = True
                self._socket.close()
                self._waker.close()
        finally:
            if free:
                self._send_lock.release()
