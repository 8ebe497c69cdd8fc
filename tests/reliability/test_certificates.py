"""Certificates: changed ones are trusted without a restart, and a refused one is explained."""

from __future__ import annotations

import datetime
import os
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from shardlib import ConnectionFailed, tls
from shardlib.tls import DefaultContext
from tests import certificates
from tests.certificates import HOST
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.support import wait_until

DAY = datetime.timedelta(days=1)

Refusal = Callable[..., str]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one file of certificates that Python's default context reads; it does not exist yet."""
    path = tmp_path / "bundle.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "no-directory"))
    return path


@pytest.fixture
def authority(bundle: Path) -> trustme.CA:
    """An authority that this computer trusts."""
    authority = trustme.CA(organization_name="Trusted")
    certificates.write_bundle(bundle, authority)
    return authority


@pytest.fixture
def refusal(make_scripted: MakeScripted, watch_shard: WatchShard) -> Refusal:
    """Returns what connect() says of a server with a context, and sees that nothing was sent."""

    def connect(server_context: ssl.SSLContext, context: ssl.SSLContext | None = None) -> str:
        gateway = make_scripted(server_context=server_context)
        shard, _ = watch_shard(gateway, connect=False, ssl_context=context)
        with pytest.raises(ConnectionFailed, match="certificate is not trusted") as caught:
            shard.connect(gateway.url)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert caught.value.__cause__.verify_code != 0
        assert all(peer.opening is None for peer in gateway.peers)
        return str(caught.value).partition("certificate is not trusted: ")[2]

    return connect


# Row 86


def test_a_bundle_that_is_replaced_is_trusted_at_the_next_connection(
    bundle: Path, authority: trustme.CA, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 86: the server's certificate comes from another authority, which an update brings."""
    gateway = make_scripted(server_context=certificates.serving(authority.issue_cert(HOST)))
    shard, recorder = watch_shard(gateway, ssl_context=None)
    other = trustme.CA()
    gateway.server_context = certificates.serving(other.issue_cert(HOST))
    replacement = bundle.with_name("replacement.pem")
    certificates.write_bundle(replacement, other)

    replacement.replace(bundle)
    gateway.peers[-1].end()

    wait_until(lambda: recorder.count("reconnected") == 1, 15, "RESUMED")
    assert len(gateway.peers) == 2  # not a single attempt was refused
    assert shard.stats.resumes == 1


def test_certificates_are_read_again_after_one_was_refused(
    bundle: Path, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 86: a store of which nothing tells that it has changed, like that of Windows."""
    authority, other = trustme.CA(), trustme.CA()
    certificates.write_bundle(bundle, authority, size=4096)
    status = bundle.stat()
    gateway = make_scripted(server_context=certificates.serving(authority.issue_cert(HOST)))
    shard, recorder = watch_shard(gateway, ssl_context=None)
    certificates.write_bundle(bundle, other, size=4096)
    os.utime(bundle, ns=(status.st_atime_ns, status.st_mtime_ns))
    gateway.server_context = certificates.serving(other.issue_cert(HOST))

    gateway.peers[-1].end()

    wait_until(lambda: recorder.count("reconnected") == 1, 15, "RESUMED")
    assert len(gateway.peers) == 3  # the second one was refused


def test_a_store_that_could_not_be_read_is_read_at_the_next_connection(
    authority: trustme.CA,
) -> None:
    """Row 86: no file could be opened for a moment; the context from then knows nobody."""
    resource = pytest.importorskip("resource")  # Windows has no such limits
    default = DefaultContext()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        empty = default.get()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert empty.get_ca_certs() == []

    context = default.get()

    assert len(context.get_ca_certs()) == 1
    assert default.get() is context  # shared, as long as nothing has changed


# Row 87


def test_a_certificate_for_another_host_is_named(authority: trustme.CA, refusal: Refusal) -> None:
    """Row 87: a captive portal, or a wrong URL."""
    hosts = ("portal.example", "10.1.1.1", "b.example", "c.example")
    said = refusal(certificates.serving(authority.issue_cert(*hosts)))

    assert "it is for portal.example and 10.1.1.1 and b.example and 1 other, not for 127" in said
    assert 'the authority "Trusted"' in said
    assert "captive portal" in said


def test_an_expired_certificate_is_named_with_the_time_of_this_computer(
    authority: trustme.CA, refusal: Refusal
) -> None:
    """Row 87: the server's fault, or that of a clock that is ahead."""
    today = f"{certificates.now():%Y-%m-%d}"
    expired = authority.issue_cert(
        HOST, not_before=certificates.now() - 9 * DAY, not_after=certificates.now() - DAY
    )
    said = refusal(certificates.serving(expired))

    assert "has expired" in said and f"clock says {today}" in said


def test_a_certificate_that_is_not_yet_valid_is_named_with_the_time_of_this_computer(
    authority: trustme.CA, refusal: Refusal
) -> None:
    """Row 87: a clock that is behind, as after the battery of a small computer has run down."""
    early = authority.issue_cert(
        HOST, not_before=certificates.now() + DAY, not_after=certificates.now() + 9 * DAY
    )
    said = refusal(certificates.serving(early))

    assert "not valid yet" in said and "clock is most likely behind" in said and "UTC" in said


@pytest.mark.usefixtures("authority")
def test_a_self_signed_certificate_is_named(refusal: Refusal) -> None:
    """Row 87: a server of one's own."""
    said = refusal(certificates.serving_self_signed("my server"))

    assert 'it is self-signed by "my server", and this computer does not know it' in said
    assert 'ssl.create_default_context(cafile="certificate.pem")' in said


@pytest.mark.usefixtures("authority")
def test_an_unknown_authority_is_named(refusal: Refusal) -> None:
    """Row 87: an inspecting proxy, or an authority of one's own."""
    inspecting = trustme.CA(organization_name="Inspection \u202e Ltd.\n")
    said = refusal(certificates.serving(inspecting.issue_cert(HOST)))

    assert r'the authority "Inspection \u202e Ltd.\n", which this computer does not' in said
    assert 'ssl.create_default_context(cafile="authority.pem")' in said


def test_a_missing_intermediate_certificate_is_named(
    authority: trustme.CA, refusal: Refusal
) -> None:
    """Row 87: browsers fetch those themselves, and so nobody has noticed."""
    intermediate = trustme.CA(authority, organization_name="In between")
    certificate = intermediate.issue_cert(HOST)
    said = refusal(certificates.serving_alone(certificate))

    assert 'the authority "In between", which this computer does not know' in said
    assert "left out an intermediate certificate" in said


def test_an_authority_that_a_given_context_does_not_know_is_named(
    authority: trustme.CA, refusal: Refusal
) -> None:
    """Row 87: then it is not the computer's store that lacks it."""
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    said = refusal(certificates.serving(authority.issue_cert(HOST)), other)

    assert "which the ssl_context that was given does not know" in said


@pytest.mark.parametrize(
    "platform, variables, advice",
    [
        ("linux", True, "Correct the environment variable SSL_CERT_FILE or SSL_CERT_DIR; or"),
        ("linux", False, "the package ca-certificates"),
        ("darwin", False, '"Install Certificates.command"'),
    ],
)
def test_a_computer_without_certificates_is_named(
    platform: str,
    variables: bool,
    advice: str,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    """Row 87: python.org's Python on a new Mac, a slim container, a mistyped variable."""
    monkeypatch.setattr(sys, "platform", platform)
    if not variables:
        paths = ssl.get_default_verify_paths()._replace(
            openssl_cafile=str(bundle), openssl_capath=str(bundle.with_name("no-directory"))
        )
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
        monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.delenv("SSL_CERT_DIR")
    said = refusal(certificates.serving(trustme.CA().issue_cert(HOST)))

    assert f"looked in {bundle} (No such file or directory) and in " in said
    assert advice in said and "certifi" in said


def test_a_bundle_without_certificates_is_named(bundle: Path, refusal: Refusal) -> None:
    """Row 87: the file is there, so that is not what is missing."""
    bundle.touch()
    said = refusal(certificates.serving(trustme.CA().issue_cert(HOST)))

    assert f"looked in {bundle} (it holds none) and in " in said


def test_a_rule_that_python_checks_since_3_13_is_named(
    authority: trustme.CA, bundle: Path, refusal: Refusal
) -> None:
    """Row 87: certificates of home-made authorities, and of inspecting proxies."""
    strict = ssl.create_default_context(cafile=bundle)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    contexts = [strict, None] if sys.version_info >= (3, 13) else [strict]
    for context in contexts:
        said = refusal(certificates.serving_without_key_identifier(authority), context)

        assert "(Missing Authority Key Identifier)" in said and "since 3.13" in said
        assert 'the authority "Trusted"' in said
        assert "context.verify_flags &= ~ssl.VERIFY_X509_STRICT" in said


def test_what_is_refused_for_another_reason_is_named(
    authority: trustme.CA, bundle: Path, refusal: Refusal
) -> None:
    """Row 87: here a revocation list is asked for, and there is none."""
    context = ssl.create_default_context(cafile=bundle)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    said = refusal(certificates.serving(authority.issue_cert(HOST)), context)

    assert "OpenSSL refuses it (unable to get certificate CRL)" in said


def test_a_key_log_that_cannot_be_written_is_named(
    authority: trustme.CA,
    make_scripted: MakeScripted,
    watch_shard: WatchShard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Row 87: the variable that is at fault may have been set by a virus scanner."""
    gateway = make_scripted(server_context=certificates.serving(authority.issue_cert(HOST)))
    shard, _ = watch_shard(gateway, connect=False, ssl_context=None)
    monkeypatch.setenv("SSLKEYLOGFILE", "/no-directory/keys.log")

    said = r"variable SSLKEYLOGFILE.*/no-directory/keys.log: No such file.*Unset it"
    with pytest.raises(ConnectionFailed, match=said):
        shard.connect(gateway.url)


def test_a_name_that_is_no_hosts_is_left_out() -> None:
    names = (("DirName", ((("commonName", "x"),),)), ("DNS", "a.example"), ("IP Address", "::1"))
    assert tls._hosts([{"subjectAltName": names}]) == "a.example and ::1"


def test_an_authority_that_may_issue_nothing_is_no_matter_of_strictness() -> None:
    error = ssl.SSLCertVerificationError("refused")
    error.verify_code = 79
    explanation = tls._explain(error, "a.example", ssl.create_default_context(), True, [])
    assert "does not allow that" in explanation and "STRICT" not in explanation
