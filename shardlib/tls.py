"""TLS: which certificates are trusted, and what it means if the server's is not."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import time
from typing import Any

from shardlib.deadline import Deadline
from shardlib.text import count, printable
from shardlib.transport import Transport

# Results of OpenSSL's verification (X509_V_ERR_...), which Python has no names for.
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_UNKNOWN = (2, 19, 20, 21)  # no authority that is known is behind it
_OTHER_NAME = (62, 64)
_NO_AUTHORITY = 79
_AGAINST_RFC_5280 = range(80, 95)  # checked with VERIFY_X509_STRICT only

# Reasons (SSLError.reason) for a handshake that fails before there is a certificate to look at.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
_OLD_TLS = (
    "UNSUPPORTED_PROTOCOL",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "NO_PROTOCOLS_AVAILABLE",
)

_HOSTS_SHOWN = 3
_NAME_LENGTH = 100  # characters shown of a name: the peer chose it

_Certificate = dict[str, Any]  # as SSLSocket.getpeercert() describes one


class CertificateRefused(ssl.SSLCertVerificationError):
    """The server's certificate is not trusted.

    :param error: what OpenSSL says.
    :param explanation: what was wrong, what it means, and what to do.
    """

    def __init__(self, error: ssl.SSLCertVerificationError, explanation: str) -> None:
        super().__init__(error.errno, explanation)
        self.verify_code = error.verify_code
        self.verify_message = error.verify_message


def start_tls(
    transport: Transport, context: ssl.SSLContext | None, host: str, deadline: Deadline
) -> None:
    """Shake hands for TLS. Called by the reader, before any other thread sends.

    :param transport: connected to the host, or to a proxy that passes bytes on to it.
    :param context: None for Python's default.
    :param host: the name or address that the server's certificate must be for.
    :param deadline: by when to be done.
    :raises CertificateRefused: if the server's certificate is not trusted.
    :raises OSError: if the handshake fails in another way.
    :raises TimeoutError: if the handshake is not done in time.
    """
    trusting = context or _default_context.get()
    try:
        transport.start_tls(trusting, host, deadline)
    except ssl.SSLCertVerificationError as error:
        _default_context.discard(trusting)
        explanation = _explain(error, host, trusting, context is None, _chain(transport.socket))
        raise CertificateRefused(
            error, f"the server's certificate is not trusted: {explanation}"
        ) from error


def explain_failed_handshake(error: ssl.SSLError, unencrypted: str) -> str:
    """What an error of the handshake means, and what to do; "" if nothing is known of it.

    :param error: raised by :func:`start_tls`, other than :class:`CertificateRefused`.
    :param unencrypted: the scheme of the URLs without TLS.
    """
    if error.reason in _NO_TLS:
        return (
            "the server does not speak TLS there; is the port right, or should the URL begin with "
            f"{unencrypted}://? If it is a public server, the log-in page of a network or a proxy "
            "answers in its place"
        )
    if error.reason in _OLD_TLS:
        return (
            "the two sides have no version of TLS or no cipher in common. Python speaks TLS 1.2 "
            "and 1.3 by default; the server, or an inspecting proxy that answers in its place, "
            "speaks older ones, and has to be updated"
        )
    if isinstance(error, ssl.SSLEOFError):
        return (
            "the connection was closed in the middle of it. A firewall or a filter between may "
            "forbid this host; or the server does not speak TLS there"
        )
    return ""


class DefaultContext:
    """Python's default context, which connections share: to read all certificates takes a while.

    A context knows the certificates that it read when it was made. So another one is made once
    they may be out of date: if the files of the system's store have changed, or if a certificate
    was refused. (Windows keeps its store in no files.)
    """

    def __init__(self) -> None:
        # One tuple, which any thread may replace. A lock could stay taken in a forked child; two
        # threads that each make a context do no harm.
        self._kept: tuple[ssl.SSLContext, object] | None = None

    def get(self) -> ssl.SSLContext:
        """The context that is kept, or another one.

        :raises OSError: if Python can't make one.
        """
        files = _state_of_store()  # taken before the reading, so that a change meanwhile is seen
        kept = self._kept
        if kept is not None and kept[1] == files:
            return kept[0]
        context = create_context()
        # An empty one is not kept: nothing could be read, for the moment perhaps; or OpenSSL looks
        # certificates up in directories, and then a context is made in no time.
        self._kept = (context, files) if context.cert_store_stats()["x509"] else None
        return context

    def discard(self, context: ssl.SSLContext) -> None:
        """Keep a context no longer, if it is the one that is kept."""
        kept = self._kept
        if kept is not None and kept[0] is context:
            self._kept = None


_default_context = DefaultContext()


def create_context() -> ssl.SSLContext:
    """Return a new context as Python makes it by default.

    :raises OSError: if Python cannot make one; the message says what to do.
    """
    try:
        return ssl.create_default_context()
    except OSError as error:
        if error.filename is None or error.filename != os.environ.get("SSLKEYLOGFILE"):
            raise
        raise OSError(
            error.errno,
            "the environment variable SSLKEYLOGFILE, which has Python log the keys of TLS "
            f"connections, names a file that cannot be written ({error.filename}: "
            f"{error.strerror}). Unset it, or let it name another file",
        ) from error


def _store() -> tuple[str, list[str]]:
    """The file and the directories in which OpenSSL looks for trusted certificates."""
    paths = ssl.get_default_verify_paths()
    file = os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile)
    directories = os.environ.get(paths.openssl_capath_env, paths.openssl_capath)
    return file, [each for each in directories.split(os.pathsep) if each]


def _state_of_store() -> object:
    """Equal as long as no file of the store was changed, replaced, added or removed."""
    file, directories = _store()
    state: list[object] = []
    for path in (file, *directories):
        try:
            status = os.stat(path)
        except OSError:
            state.append(path)
        else:
            state.append((path, status.st_ino, status.st_size, status.st_mtime_ns))
    return state


def is_store_empty(context: ssl.SSLContext) -> bool:
    """True if a default context trusts no authority, nor may find one in the system's directories.

    :param context: as :func:`create_context` returned it.
    """
    if context.cert_store_stats()["x509"]:
        return False
    for directory in _store()[1]:
        with contextlib.suppress(OSError):
            if os.listdir(directory):
                return False
    return True


def _chain(sock: Any) -> list[_Certificate]:
    """The certificates that a server has sent and that were refused, its own first.

    Before Python 3.13 no public method has them; and that of 3.13 does not decode them.
    """
    try:
        return [each.get_info() for each in sock._sslobj.get_unverified_chain()]
    except Exception:  # OpenSSL 1.1.1 has forgotten them; and Python promises nothing here
        return []


# What to say of a certificate


def _explain(
    error: ssl.SSLCertVerificationError,
    host: str,
    context: ssl.SSLContext,
    is_default: bool,
    chain: list[_Certificate],
) -> str:
    code = error.verify_code
    name = authority_name(chain[-1]["issuer"]) if chain else ""
    authority = f'the authority "{name}"' if name else "an authority"
    knower = "this computer" if is_default else "the ssl_context that was given"
    if code in _OTHER_NAME:
        return (
            f"it is for {_hosts(chain) or 'another host'}, not for {host}, and was issued by "
            f"{authority}. The host in the URL is wrong; or a captive portal (the log-in page of a "
            "network) or an inspecting proxy answers in the server's place: log in there, or use "
            "another network"
        )
    if code == _EXPIRED:
        return (
            "it, or the certificate of an authority behind it, has expired. This computer's clock "
            f"says {_now()}: set it if it is wrong. If it is right, the server needs a new "
            "certificate, or this computer newer ones of the authorities"
        )
    if code == _NOT_YET_VALID:
        return (
            "it is not valid yet. This computer's clock is most likely behind, it says "
            f"{_now()}: set it. If it is right, the server uses its certificate too early"
        )
    if code == _SELF_SIGNED:
        by = f' by "{name}"' if name else ""
        return (
            f"it is self-signed{by}, and {knower} does not know it. If "
            f"it is your own server's, {_trust('certificate.pem')}. If not, a captive portal or an "
            "inspecting proxy answers in the server's place: use another network"
        )
    if code in _UNKNOWN and is_default and is_store_empty(context):
        return explain_empty_store()
    if code in _UNKNOWN:
        return (
            f"it was issued by {authority}, which {knower} does not know. If the authority is your "
            "own, or belongs to an inspecting proxy or a virus scanner that you want to trust, "
            f"{_trust('authority.pem')}. If the server is a public one, update this computer's "
            "certificates, or use another network; or the server has left out an intermediate "
            "certificate, which its operator has to add"
        )
    if code == _NO_AUTHORITY:
        return (
            f"it was issued by {authority}, whose own certificate does not allow that; another "
            "program may be answering in the server's place. The server needs a certificate of a "
            "proper authority"
        )
    if code in _AGAINST_RFC_5280:
        return (
            f"it breaks a rule of RFC 5280 ({error.verify_message}), or the certificate of an "
            f"authority behind it does; it was issued by {authority}. Python checks these rules by "
            "default since 3.13. The certificate has to be issued anew; until then, pass an "
            "ssl_context without the check: context = ssl.create_default_context(), then "
            "context.verify_flags &= ~ssl.VERIFY_X509_STRICT"
        )
    return (
        f"OpenSSL refuses it ({error.verify_message}); it was issued by {authority}. The server "
        "needs another certificate"
    )


def explain_empty_store() -> str:
    """Where Python looks for the authorities that it trusts, and what to do if there are none."""
    file, directories = _store()
    try:
        with open(file, "rb"):
            problem = "it holds none"
    except OSError as error:
        problem = error.strerror or "it cannot be read"
    paths = ssl.get_default_verify_paths()
    variables = [
        name for name in (paths.openssl_cafile_env, paths.openssl_capath_env) if name in os.environ
    ]
    if variables:
        advice = f"Correct the environment variable {' or '.join(variables)}"
    elif sys.platform == "darwin":
        advice = 'Run "Install Certificates.command" in the folder of this Python in Applications'
    else:
        advice = "Install the system's certificates, the package ca-certificates of most systems"
    return (
        "Python finds no certificates of authorities on this computer, and so trusts no server. It "
        f"looked in {' and in '.join([f'{file} ({problem})', *directories])}. {advice}; or install "
        "certifi and pass ssl_context=ssl.create_default_context(cafile=certifi.where())"
    )


def _trust(file: str) -> str:
    return f'pass ssl_context=ssl.create_default_context(cafile="{file}")'


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def authority_name(relative_names: Any) -> str:
    """The organisation and the common name of a certificate's issuer, fit to be shown.

    :param relative_names: as :meth:`ssl.SSLSocket.getpeercert` has the issuer.
    """
    parts = dict(pair for relative_name in relative_names for pair in relative_name)
    shown = [parts[key] for key in ("organizationName", "commonName") if parts.get(key)]
    return printable(", ".join(shown), _NAME_LENGTH)


def _hosts(chain: list[_Certificate]) -> str:
    """The hosts that a server's certificate is for, the first few."""
    if not chain:
        return ""
    names = chain[0].get("subjectAltName", ())
    hosts = [value for kind, value in names if kind in ("DNS", "IP Address")]
    shown = " and ".join(printable(host, _NAME_LENGTH) for host in hosts[:_HOSTS_SHOWN])
    more = len(hosts) - _HOSTS_SHOWN
    return f"{shown} and {count(more, 'other')}" if more > 0 else shown
