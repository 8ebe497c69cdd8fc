"""The two ports that a gateway listens at, and the sockets of its clients."""

from __future__ import annotations

import asyncio
import socket
import ssl

from shardlib.testing import tls as certificates
from shardlib.testing.driver import ConnectionDriver, Environment
from shardlib.testing.transport import ClientSocket, ClientTransport


class Listeners:
    """Listens at the gateway's URL and at its URL for a Resume, and accepts clients.

    Any thread may call :meth:`open` before the gateway's thread has started. Afterwards only the
    gateway's thread calls the methods, without the lock.

    :param host: the address to listen at.
    :param port: the port of the gateway's URL; 0 for any free port. The port for a Resume is always
        any free port.
    :param tls: whether clients must speak TLS.
    :param receive_buffer: ``SO_RCVBUF`` of the clients' sockets, in bytes; None for the operating
        system's default.
    :param environment: the parts of the gateway that all connections share.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool,
        receive_buffer: int | None,
        environment: Environment,
    ) -> None:
        self._host = host
        #: The port of the gateway's URL and the port for a Resume; 0 until :meth:`open` has found a
        #: free port.
        self.ports = [port, 0]
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._environment = environment
        self._listeners: list[socket.socket] = []
        self._transports: set[ClientTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to listen. Clients that connect wait until :meth:`accept_clients`.

        :raises OSError: if a port is taken.
        """
        try:
            for index, port in enumerate(self.ports):
                listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET)
                self._listeners.append(listener)
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if self._receive_buffer is not None:
                    # Accepted sockets inherit the size. To set the size after accept() would be too
                    # late, because the client has learnt the larger TCP window by then.
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
                listener.bind((self._host, port))
                listener.listen(512)
                self.ports[index] = listener.getsockname()[1]
        except BaseException:
            for listener in self._listeners:
                listener.close()
            self._listeners.clear()
            raise

    def accept_clients(self) -> None:
        """Accept the clients that have connected already, and all later ones."""
        loop = asyncio.get_running_loop()
        for index, listener in enumerate(self._listeners):
            loop.add_reader(listener, self._accept, listener, index == 1)

    def close(self) -> None:
        """Stop listening, so that the operating system refuses further clients."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    def close_and_reset_clients(self) -> None:
        """Stop listening, and reset the TCP connections of all clients (RST)."""
        self.close()
        for transport in tuple(self._transports):
            transport.reset()

    def reopen(self) -> None:
        """Listen again at the same ports; do nothing if the ports are open.

        :raises OSError: if another program has taken a port meanwhile.
        """
        if not self._listeners:
            self.open()
            self.accept_clients()

    async def shut_down(self) -> None:
        """Close every socket, and end every transport and task."""
        self.close()
        # Let each new task begin: a task cancelled before its first step would never run the code
        # that closes the task's socket.
        await asyncio.sleep(0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in tuple(self._transports):
            transport.abort()
        # asyncio has scheduled the callbacks that close the sockets. Let them run.
        while self._transports:
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket, at_resume_url: bool) -> None:
        try:
            client = ClientSocket(listener.accept()[0])
        except OSError:
            return  # the client ended the connection between select() and accept()
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = self._environment.thread
        with thread.lock:
            driver = ConnectionDriver(self._environment, at_resume_url=at_resume_url)
        transport = ClientTransport(
            client,
            driver,
            thread=thread,
            rules=self._environment.rules,
            forget=self._transports.discard,
        )
        context = None
        if self._tls and not driver.accept_is_replaced:
            context = certificates.server_context(self._host)
        task = asyncio.get_running_loop().create_task(self._connect(transport, client, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(
        self, transport: ClientTransport, client: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        """Connect a transport to a client's socket, with a TLS handshake if there is a context."""
        loop = asyncio.get_running_loop()
        self._transports.add(transport)
        try:
            await loop.connect_accepted_socket(lambda: transport, client, ssl=context)
        except (OSError, asyncio.CancelledError):
            # The client does not speak TLS, does not trust the certificate or has ended the
            # connection, or the gateway stops.
            transport.abandon()
