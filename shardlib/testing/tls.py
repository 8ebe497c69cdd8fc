"""TLS for a local gateway: a certificate authority that lives as long as the process."""

from __future__ import annotations

import functools
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme


# Held while the authority is made. Without the lock, a gateway's thread and a test that call
# authority() at once would each make an authority, and the client would not trust the gateway.
_authority_lock = threading.Lock()


def authority() -> trustme.CA:
    """Return this process's throw-away authority.

    The first call makes the authority. All gateways of the process share the authority, because
    making keys takes milliseconds.

    :raises ImportError: if the package trustme is missing.
    """
    with _authority_lock:
        return _make_authority()


@functools.cache
def _make_authority() -> trustme.CA:
    try:
        import trustme
    except ImportError:
        raise ImportError(
            "LocalGateway(tls=True) makes its certificates with the package trustme: "
            'pip install "shardlib[local]"'
        ) from None
    return trustme.CA()


@functools.cache
def server_context(host: str) -> ssl.SSLContext:
    """Return a server's context, with a certificate for an address and for ``localhost``.

    :param host: the address.
    :raises ImportError: if the package trustme is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host, "localhost").configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return a client's context that trusts only the throw-away authority.

    :raises ImportError: if the package trustme is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
