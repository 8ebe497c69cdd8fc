"""TLS for a local gateway: a certificate authority that lives as long as the process."""

from __future__ import annotations

import functools
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme


# Held while the authority is made. Without the lock, a gateway's thread and a test that ask at the
# same moment would each make an authority, and would not trust each other.
_authority_lock = threading.Lock()


def authority() -> trustme.CA:
    """Return this process's throw-away authority.

    The first call makes the authority. Making keys takes milliseconds, so that all gateways of the
    process share one authority.

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
    """Return a server's context, with a certificate for an address.

    :param host: the address; the certificate is good for ``localhost``, too.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host, "localhost").configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return a client's context that trusts the throw-away authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
