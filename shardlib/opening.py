"""Opening: from a URL to a stream on which a request can be sent, and what to say if it fails."""

from __future__ import annotations

import ssl
import urllib.parse
from collections.abc import Callable

from shardlib.answers import UnusableAnswer
from shardlib.deadline import Deadline
from shardlib.dial import Dialer, ProxyRefused
from shardlib.errors import ConnectionFailed
from shardlib.proxies import address_of, environment_proxy
from shardlib.text import count, gist, printable
from shardlib.tls import CertificateRefused, explain_failed_handshake, start_tls
from shardlib.transport import Transport

# By the schemes that ask for TLS, those that do without.
_UNENCRYPTED = {"wss": "ws", "https": "http"}


class Opening:
    """One attempt to reach the host of a URL. One thread opens; any thread may abort.

    :param url: a ``ws``, ``wss``, ``http`` or ``https`` URL, which was checked.
    :param ssl_context: for the schemes with TLS, or None for Python's default.
    :param proxy: URL of the proxy, "" for none, or None for the environment's.
    :param timeout: seconds of the deadlines, for the message of an error.
    :param hide_token: returns a text of the peer's without the token, for errors.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        timeout: float,
        hide_token: Callable[[str], str],
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self._unencrypted = _UNENCRYPTED.get(parts.scheme)
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if self._unencrypted is None else 443)
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._timeout = timeout
        self._hide_token = hide_token
        self._dialer = Dialer(self._host, self._port)
        self._step = "connecting"

    def dial(self, deadline: Deadline) -> Transport:
        """Connect to the host, or through a proxy. Blocks the calling thread until `deadline`.

        If the system asks the network for a proxy to use (Windows, macOS), that comes on top.

        :raises Exception: for which :meth:`failure` has the words.
        """
        # Looked up only here, where no lock is held: some systems ask the network about it.
        proxy = self._proxy
        if proxy is None:
            secure = self._unencrypted is not None
            proxy = environment_proxy(self._host, self._port, secure)
        if proxy:
            self._step = f"connecting through the proxy {address_of(proxy)}"
        return self._dialer.dial(proxy, deadline)

    def start_tls(self, transport: Transport, deadline: Deadline) -> None:
        """Shake hands for TLS, if the URL asks for it. Blocks the calling thread.

        :param transport: as :meth:`dial` returned it.
        :raises Exception: for which :meth:`failure` has the words.
        """
        if self._unencrypted is not None:
            self._step = "the TLS handshake"
            start_tls(transport, self._ssl_context, self._host.rstrip("."), deadline)

    def begin(self, step: str) -> None:
        """Name what the caller does next with the stream, for the message of an error."""
        self._step = step

    def abort(self) -> None:
        """End what is under way, and the stream, at once. Any thread, at any time."""
        self._dialer.abort()

    def failure(self, error: Exception, what: str) -> tuple[ConnectionFailed, Exception | None]:
        """The error for users, and its cause: None if that shows the token.

        Raise them outside of the handler of `error`, which would be the context, token and all.

        :param error: raised by one of the methods, or by what the caller did with the stream.
        :param what: has failed, as "cannot connect to".
        """
        retry_after = error.retry_after if isinstance(error, UnusableAnswer) else None
        failure = ConnectionFailed(
            f"{what} {self._host}:{self._port}: {self._explain(error)}", retry_after=retry_after
        )
        return failure, None if self._shows_token(error) else error

    def _shows_token(self, error: BaseException | None) -> bool:
        while error is not None:
            text = str(error)
            if self._hide_token(text) != text:
                return True
            error = error.__cause__ or error.__context__
        return False

    def _explain(self, error: Exception) -> str:
        step = self._step
        if isinstance(error, TimeoutError):
            return f"{step} was not done within {count(self._timeout, 'second')}"
        if isinstance(error, UnusableAnswer):
            said = printable(gist(self._hide_token(error.said)), 200)
            return f"{step} failed: {error}: {said}" if said else f"{step} failed: {error}"
        if isinstance(error, CertificateRefused):
            return self._hide_token(str(error))
        if isinstance(error, ssl.SSLError) and self._unencrypted is not None:
            explanation = explain_failed_handshake(error, self._unencrypted)
            if explanation:
                return f"{step} failed: {explanation}"
        if isinstance(error, ProxyRefused):
            refusal = f"{step} failed: {printable(self._hide_token(str(error)), 200)}"
            return f"{refusal}. {error.advice}" if error.advice else refusal
        if isinstance(error, OSError) and error.strerror:
            return f"{step} failed: {error.strerror}"
        return f"{step} failed: {printable(self._hide_token(str(error)), 200)}"
