"""Certificates with which something is wrong, and the contexts of servers that show them."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import tempfile
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The context of a server with a certificate, and the intermediate ones behind it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def serving_alone(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The context of a server that leaves the intermediate certificates out."""
    return _serving_pem(
        certificate.private_key_pem.bytes() + certificate.cert_chain_pems[0].bytes()
    )


def serving_self_signed(name: str) -> ssl.SSLContext:
    """The context of a server whose certificate it has signed itself, under a name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return _serving_pem(_pem(key) + _sign(key, subject, key, subject))


def serving_without_key_identifier(authority: trustme.CA) -> ssl.SSLContext:
    """The context of a server whose certificate does not identify the key it was signed with."""
    key = ec.generate_private_key(ec.SECP256R1())
    signing = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    return _serving_pem(_pem(key) + _sign(key, x509.Name([]), signing, issuer))


def write_bundle(path: Path, *authorities: trustme.CA, size: int = 0) -> None:
    """Write the file of trusted certificates.

    :param size: of the file in bytes, at least; what is left is a comment.
    """
    content = b"".join(authority.cert_pem.bytes() for authority in authorities)
    path.write_bytes(content.ljust(size, b"#"))


def _sign(
    key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    signing_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
) -> bytes:
    address = x509.IPAddress(ipaddress.ip_address(HOST))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(days=1))
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=True)
        .sign(signing_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _serving_pem(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:  # OpenSSL loads a key from a file only
        path = os.path.join(directory, "certificate.pem")
        Path(path).write_bytes(pem)
        context.load_cert_chain(path)
    return context
