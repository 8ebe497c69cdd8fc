"""TLS for a local gateway: a certificate authority that lives as long as the process."""

from __future__ import annotations

import functools
import ssl
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme


# Held while the authority is made: a gateway's thread and a test may both be the first to ask, and
# with an authority each they would not trust each other.
_making = threading.Lock()


def authority() -> trustme.CA:
    """Return this process's throw-away authority.

    It is made once: making keys takes milliseconds, and hundreds of tests use them.
    """
    with _making:
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
    """Return a context that proves to be ``host`` (or ``localhost``)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host, "localhost").configure_cert(context)
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """Return a context that trusts the throw-away authority and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
