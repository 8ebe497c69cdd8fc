"""Dialling: from a host's name to a connected TCP socket, directly or through a proxy.

Each address of a host is tried, a new one every quarter of a second while the others are still
being waited for (the idea of RFC 8305, "Happy Eyeballs"): a machine with a broken IPv6 route is
then late by a moment, not by minutes.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
import urllib.parse
from typing import Any

from shardlib.deadline import Deadline
from shardlib.transport import Transport
from shardlib.waiting import Alarm

ATTEMPT_DELAY = 0.25  # seconds between the starts of two attempts, as RFC 8305 recommends
PROXY_PORTS = {"http": 8080, "socks4": 1080, "socks5": 1080, "socks5h": 1080}

# What python-socks says if a SOCKS proxy refuses the user: there is no reply with a code then.
_PASSWORD_REFUSED = ("authentication failure", "No acceptable authentication")

Address = tuple[socket.AddressFamily, tuple[Any, ...]]


# Bytes of the head of an HTTP proxy's answer; what is longer is no answer.
_MOST_OF_HEAD = 65536


class Dialer:
    """One attempt to reach a host. The reader thread dials; any thread may give up.

    :param host: a name or an address.
    :param port: the TCP port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._given_up = False
        self._resolved = Alarm()  # rung by the resolver's thread, and by abort()
        self._transport: Transport | None = None

    def abort(self) -> None:
        """End :meth:`dial` within a quarter of a second. From any thread."""
        self._given_up = True  # before the transport is looked at: see _connect_and_publish
        self._resolved.ring()
        if self._transport is not None:
            self._transport.abort()

    def dial(self, proxy: str | None, deadline: Deadline) -> Transport:
        """Connect. Blocks the calling thread until `deadline`.

        :param proxy: a proxy's URL; None or "" for a direct connection.
        :param deadline: by when to be connected.
        :raises OSError: if no address could be reached.
        :raises ConnectionAbortedError: if :meth:`abort` was called.
        :raises TimeoutError: if the time ran out.
        :raises ValueError: if the environment names a proxy that cannot be used here.
        """
        if not proxy:
            return self._connect_and_publish(self._host, self._port, deadline)
        return self._dial_through_proxy(proxy, deadline)

    def _check(self) -> None:
        if self._given_up:
            raise ConnectionAbortedError("the connection attempt was given up")

    def _connect_and_publish(self, host: str, port: int, deadline: Deadline) -> Transport:
        sock = self._connect(host, port, deadline)
        try:
            self._transport = transport = Transport(sock)
            if self._given_up:  # by a thread that may not have seen the transport yet
                transport.abort()
        except BaseException:  # no descriptors are left for the transport's own sockets, say
            sock.close()
            raise
        return transport

    def _connect(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        addresses = resolve(host, port, deadline, self._resolved)
        waiting: list[socket.socket] = []
        first_error: OSError | None = None
        next_start = Deadline(0)
        try:
            while True:
                self._check()
                left = deadline.remaining()
                if left == 0:
                    raise TimeoutError(f"{host}:{port} did not answer in time")
                if addresses and (not waiting or next_start.remaining() == 0):
                    next_start = Deadline(ATTEMPT_DELAY)
                    try:
                        waiting.append(_start_connecting(*addresses.pop(0)))
                    except OSError as error:
                        first_error = first_error or error
                    continue
                if not waiting:
                    raise first_error or OSError(f"{host} has no address")
                # In short slices, so that the next address and giving up get their turn.
                timeout = ATTEMPT_DELAY if left is None else min(ATTEMPT_DELAY, left)
                for sock in _finished(waiting, timeout):
                    waiting.remove(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return sock
                    sock.close()
                    first_error = first_error or OSError(code, os.strerror(code))
        finally:
            first_error = None  # else a cycle: its traceback refers to this frame
            for sock in waiting:
                sock.close()

    def _dial_through_proxy(self, proxy: str, deadline: Deadline) -> Transport:
        check_proxy(proxy)  # the option was checked before, the environment's URL was not
        from python_socks import ProxyError, ProxyType
        from python_socks.sync import Proxy

        url = urllib.parse.urlsplit(proxy)
        assert url.hostname is not None  # as check_proxy saw
        port = url.port or PROXY_PORTS[url.scheme]
        transport = self._connect_and_publish(url.hostname, port, deadline)
        adapter = HeadSocketAdapter if url.scheme == "http" else BlockingSocketAdapter
        try:
            # python-socks speaks with the proxy over the connection that is already there. The
            # proxy resolves the Gateway's name: it may know names that this machine doesn't.
            Proxy.create(
                proxy_type=ProxyType[url.scheme.rstrip("h").upper()],
                host=url.hostname,
                port=port,
                username=urllib.parse.unquote(url.username or ""),
                password=urllib.parse.unquote(url.password or ""),
                rdns=True,
                forward=_Forward(adapter(transport, deadline)),
            ).connect(self._host, self._port)
        except UnicodeEncodeError:  # which would show the password
            transport.close()
            raise OSError(
                "the user name or the password in the proxy's URL holds characters that an HTTP "
                "proxy cannot be told (only Latin-1 can)"
            ) from None
        except ProxyError as error:
            transport.close()
            raise ProxyRefused(str(error), error.error_code, url.scheme) from error
        except BaseException:
            transport.close()
            raise
        return transport


class ProxyRefused(OSError):
    """A proxy answered, but did not connect.

    :param said: by the proxy, or by python-socks of an answer that no proxy gives.
    :param code: the status of an HTTP proxy, or the reply of a SOCKS proxy; None if neither came.
    :param scheme: of the proxy's URL.
    """

    def __init__(self, said: str, code: int | None, scheme: str) -> None:
        self.advice = ""
        wants_password = code == 407 or any(words in said for words in _PASSWORD_REFUSED)
        if code is None and not wants_password:
            super().__init__(f"what answers there is no {scheme} proxy: {said}")
            self.advice = "Are the scheme and the port in the proxy's URL right?"
            return
        super().__init__(f"the proxy refused: {said}")
        if wants_password:
            self.advice = (
                "The proxy wants a user and a password that it knows: "
                f"{scheme}://user:password@host:port"
            )
        elif scheme == "http" and code in (502, 503, 504):
            self.advice = "The proxy itself cannot reach the server"
        elif scheme == "http":
            self.advice = (
                "The proxy forbids this host or this port: ask whoever runs the proxy to allow them"
            )


class _Forward:
    """Stands for the hop before a proxy: what python-socks asks for a connection to it."""

    def __init__(self, stream: BlockingSocketAdapter) -> None:
        self._stream = stream

    def connect(self, **_: Any) -> BlockingSocketAdapter:
        return self._stream


class BlockingSocketAdapter:
    """What python-socks gets for a blocking socket: a transport with one deadline."""

    def __init__(self, transport: Transport, deadline: Deadline) -> None:
        self._transport = transport
        self._deadline = deadline
        self._unread = b""

    def recv(self, size: int) -> bytes:
        # The transport receives in large pieces, and more may have come than was asked for.
        received = self._unread or self._transport.receive(self._deadline)
        self._unread = received[size:]
        return received[:size]

    def sendall(self, data: bytes) -> None:
        self._transport.send(data, self._deadline)

    def close(self) -> None:
        pass  # the transport's owner closes it


class HeadSocketAdapter(BlockingSocketAdapter):
    """The same for an HTTP proxy, whose answer python-socks takes from a single recv()."""

    def recv(self, size: int) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _MOST_OF_HEAD:
            received = self._transport.receive(self._deadline)
            if not received:
                break
            head += received
        return head


MISSING_PROXY_SUPPORT = (
    "a proxy is asked for, by the option or by the environment, and speaking with one needs the "
    'package python-socks: pip install "shardlib[proxy]"'
)


def check_proxy(proxy: str | None) -> None:
    """Check the option `proxy`.

    :raises TypeError: if it is neither a str nor None.
    :raises ValueError: if it is neither "" nor the URL of a kind of proxy that can be used here.
    """
    if proxy is None or proxy == "":
        return
    if not isinstance(proxy, str):
        raise TypeError(f"proxy must be a URL, a str, or None, not {type(proxy).__name__}")
    try:
        url = urllib.parse.urlsplit(proxy)
        usable = url.scheme in PROXY_PORTS and bool(url.hostname)
        usable = usable and url.port != 0
    except ValueError:
        usable = False
    if not usable:  # the URL may hold a password: it is not repeated
        raise ValueError(
            "proxy must be a URL like http://host:port or socks5://host:port, or an empty str for "
            f"none; the schemes that can be used are {', '.join(PROXY_PORTS)}"
        )
    try:
        import python_socks  # noqa: F401
    except ImportError:
        raise ValueError(MISSING_PROXY_SUPPORT) from None


def resolve(host: str, port: int, deadline: Deadline, resolved: Alarm) -> list[Address]:
    """The addresses of a host, IPv6 and IPv4 in turn.

    The system's resolver can neither be interrupted nor be given a deadline, so it is asked on
    a thread of its own, which is left behind if it does not come back in time. An address
    written in digits needs no resolver, and no thread.

    :param host: a name or an address.
    :param port: the TCP port.
    :param deadline: by when the addresses must be there.
    :param resolved: rung when they are. Another thread that rings it ends the wait.
    :raises OSError: if the host has no address.
    :raises TimeoutError: if the time ran out.
    :raises ConnectionAbortedError: if another thread ended the wait.
    """
    try:
        return _addresses(host, port, socket.AI_NUMERICHOST)
    except OSError:
        pass
    answer: list[list[Address] | Exception] = []

    def ask() -> None:
        try:
            answer.append(_addresses(host, port, 0))
        except Exception as error:  # UnicodeError too: a label too long, or not encodable
            answer.append(
                error.with_traceback(None)
            )  # else a cycle: its traceback refers to this frame, and the frame to it
        resolved.ring()

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    if not resolved.wait(deadline.remaining()):
        raise TimeoutError(f"the address of {host} was not found in time")
    if not answer:
        raise ConnectionAbortedError("the connection attempt was given up")
    if isinstance(answer[0], Exception):
        reason = getattr(answer[0], "strerror", None) or answer[0]
        raise OSError(f"the address of {host} was not found: {reason}") from answer[0]
    return answer[0]


def _addresses(host: str, port: int, flags: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    other = [entry for entry in addresses if entry[0] != addresses[0][0]]
    pairs = itertools.zip_longest(first, other)
    return [entry for pair in pairs for entry in pair if entry is not None]


def _start_connecting(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Payloads are small and each matters by itself: none waits for another to fill a packet.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass  # on its way
        return sock
    except BaseException:
        sock.close()
        raise


def _finished(waiting: list[socket.socket], timeout: float) -> list[socket.socket]:
    """Those of the sockets whose connecting has succeeded or failed."""
    if hasattr(select, "poll"):
        poll = select.poll()
        for sock in waiting:
            poll.register(sock, select.POLLOUT)
        ready = {file_descriptor for file_descriptor, _ in poll.poll(int(timeout * 1000) + 1)}
        return [sock for sock in waiting if sock.fileno() in ready]
    _, writable, failed = select.select([], waiting, waiting, timeout)
    return list({*writable, *failed})  # Windows reports a refused connection as exceptional
