"""The answer to the WebSocket handshake: read by RFC 9110 and 9112, judged by RFC 6455."""

from __future__ import annotations

import email.utils
import itertools
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.answers import (
    BODY_BYTES,
    MAX_HEAD,
    Head,
    UnusableAnswer,
    parse_head,
    read_beginning,
    read_head,
)
from shardlib.handshake import accept_value, check_upgrade, refusal

# Key and answer are those of RFC 6455, section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

SWITCHING = "HTTP/1.1 101 Switching Protocols"
UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
ACCEPTING = f"Sec-WebSocket-Accept: {ACCEPT}"


class Pieces:
    """Receives one piece after the other, and then the end of the stream."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter([piece for piece in pieces if piece])

    def __call__(self) -> bytes:
        return next(self._pieces, b"")

    def rest(self) -> bytes:
        """What was not received."""
        return b"".join(self._pieces)


def single_bytes(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def head_of(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def judge(pieces: Iterable[bytes]) -> tuple[Any, ...]:
    """What comes of an answer: a head and the bytes after it, or why there is none."""
    receive = Pieces(pieces)
    try:
        head, unread = read_head(receive)
        if head.status != 101:
            body = read_beginning(head, unread, receive)
            raise refusal(head, body, 0.0)
        check_upgrade(head, KEY)
    except UnusableAnswer as error:
        # How much of what is no HTTP has come, and is shown, is chance.
        said = "" if "not speak HTTP" in str(error) else error.said
        return str(error), said, error.retry_after
    return head, unread + receive.rest()


def test_the_answer_to_a_key_is_that_of_the_rfc() -> None:
    assert accept_value(KEY) == ACCEPT


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING), id="plain"),
        pytest.param(head_of(SWITCHING, ACCEPTING, CONNECTION, UPGRADE), id="another order"),
        pytest.param(
            head_of("HTTP/1.1 101", UPGRADE, CONNECTION, ACCEPTING), id="no reason phrase"
        ),
        pytest.param(
            head_of("HTTP/1.1 101 \xdcbergang", UPGRADE, CONNECTION, ACCEPTING),
            id="a reason phrase in Latin-1",
        ),
        pytest.param(
            head_of(SWITCHING, "UPGRADE: WebSocket", "connection:upgrade", ACCEPTING),
            id="another case, no space",
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, "Connection: keep-alive, Upgrade", ACCEPTING), id="a list"
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, "Connection: keep-alive", "Connection: Upgrade", ACCEPTING),
            id="a list in two fields",
        ),
        pytest.param(
            head_of(SWITCHING, "Upgrade: , websocket ,\t", CONNECTION, ACCEPTING),
            id="empty members of a list",
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Via: 1.1 M\xfcller"), id="Latin-1"
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Set-Cookie: cf/bm@1=abc; path=/"),
            id="an odd cookie",
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, "Connection:\r\n keep-alive,\r\n\t Upgrade", ACCEPTING),
            id="folded",
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING).replace(b"\r\n", b"\n"), id="LF"
        ),
        pytest.param(
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Sec-WebSocket-Extensions:"),
            id="no extension named",
        ),
        pytest.param(
            head_of("HTTP/1.1 100 Continue")
            + head_of("HTTP/1.1 103 Early Hints", "Link: </x>")
            + head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING),
            id="after 100 and 103",
        ),
    ],
)
def test_a_valid_head_is_accepted_and_what_follows_it_is_kept(head: bytes) -> None:
    accepted, rest = judge([head + b"\x81\x00"])

    assert isinstance(accepted, Head)
    assert rest == b"\x81\x00"


@pytest.mark.parametrize(
    "answer, why",
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 101 Switching Proto", "closed the connection"),
        (head_of("HTTP/1.1 100 Continue"), "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01", "does not speak HTTP"),
        (head_of("HTTP/1.1"), "no HTTP status"),
        (head_of("HTTP/1.1 1010 x"), "no HTTP status"),
        (head_of("HTTP/1.1 -10 x"), "no HTTP status"),
        (head_of("HTTP/1.1 200 OK"), r"HTTP 200 \(OK\)"),
        (head_of("HTTP/1.1 599"), r"HTTP 599 \(unknown status\)"),
        (head_of("HTTP/1.1 302 Found", "Location: ws://x/"), "302 .*a redirect, .* not followed"),
        (head_of("HTTP/1.1 503 Busy", "no field"), r"HTTP 503 \(Service Unavailable\)"),
        (head_of(SWITCHING, CONNECTION, ACCEPTING), "no Upgrade: websocket"),
        (head_of(SWITCHING, "Upgrade: h2c", CONNECTION, ACCEPTING), "no Upgrade: websocket"),
        (head_of(SWITCHING, UPGRADE, ACCEPTING), "no Connection: Upgrade"),
        (head_of(SWITCHING, UPGRADE, "Connection: close", ACCEPTING), "no Connection: Upgrade"),
        (head_of(SWITCHING, UPGRADE, CONNECTION), "Sec-WebSocket-Accept 0 times"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, *[ACCEPTING] * 2), "Sec-WebSocket-Accept 2 times"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING.swapcase()), "not belong to the key"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING + "\xa0"), "not belong to the key"),
        (
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Sec-WebSocket-Extensions: x; y=1"),
            "Extensions names an extension that was not asked for",
        ),
        (
            head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Sec-WebSocket-Protocol: chat"),
            "Protocol names a subprotocol that was not asked for",
        ),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "no field"), "no header field"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Via : x"), "no header field"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Via: \0"), "no header field"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Via: x\ry"), "no header field"),
        (head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING, "Via: x\r"), "no header field"),
        (head_of(SWITCHING, " folded", UPGRADE, CONNECTION, ACCEPTING), "no header field"),
    ],
)
def test_what_is_no_consent_is_refused_and_the_error_says_why(answer: bytes, why: str) -> None:
    with pytest.raises(UnusableAnswer, match=why):
        head, unread = read_head(Pieces([answer]))
        if head.status != 101:
            raise refusal(head, "", 0.0)
        check_upgrade(head, KEY)


def test_what_the_server_wrote_stands_apart_from_the_message() -> None:
    with pytest.raises(UnusableAnswer) as caught:
        read_head(Pieces([b"SSH-2.0-OpenSSH_9.6\r\n"]))

    assert caught.value.said == "SSH-2.0-OpenSSH_9.6\r"
    assert "SSH" not in str(caught.value)


@pytest.mark.parametrize("announced", [0, 1, 2])
@pytest.mark.parametrize("cut", [lambda data: [data], single_bytes], ids=["whole", "byte-wise"])
def test_the_heads_are_as_long_as_they_may_be_and_no_longer(cut: Any, announced: int) -> None:
    first = head_of("HTTP/1.1 100 Continue") * announced
    lines = (SWITCHING, UPGRADE, CONNECTION, ACCEPTING)
    padding = MAX_HEAD - len(first + head_of(*lines, "X: "))

    accepted, rest = judge(cut(first + head_of(*lines, "X: " + "x" * padding) + b"\x81\x00"))
    assert accepted.status == 101
    assert rest == b"\x81\x00"

    refused, *_ = judge(cut(first + head_of(*lines, "X: " + "x" * (padding + 1))))
    assert refused == f"the head of the answer has more than {MAX_HEAD} bytes"


def test_the_end_of_a_head_is_found_after_an_announcement_that_was_longer() -> None:
    first = head_of("HTTP/1.1 103 Early Hints", "Link: " + "x" * 500)
    final = head_of(SWITCHING, UPGRADE, CONNECTION, ACCEPTING)

    assert judge([first[:-1], first[-1:] + final]) == judge([final])


def test_announcements_without_end_are_a_head_without_end() -> None:
    receive = Pieces([head_of("HTTP/1.1 100 Continue")] * MAX_HEAD)

    with pytest.raises(UnusableAnswer, match="more than"):
        read_head(receive)


# Heads that are made up

NAMES = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12).filter(
    lambda name: not name.lower().startswith(("sec-", "upgrade", "connection"))
)
TEXT = st.characters(codec="latin-1", exclude_characters="\r\n\0")
VALUES = st.text(TEXT, max_size=20)
SPACE = st.text(" \t", max_size=3)
OTHER_MEMBERS = st.lists(st.sampled_from(["", "keep-alive", "h2c", "x"]), max_size=3)


@st.composite
def folds(draw: st.DrawFn, value: str) -> str:
    """A value with space around it, and perhaps a line break in the space."""
    fold = st.sampled_from(["", "\r\n ", "\n\t"])
    return draw(SPACE) + draw(fold) + value + draw(SPACE) + draw(fold)


@st.composite
def lists(draw: st.DrawFn, name: str, member: str) -> list[tuple[str, str]]:
    """The lines of a header field that is a list with a certain member."""
    members = draw(st.permutations([member, *draw(OTHER_MEMBERS)]))
    cut = draw(st.integers(0, len(members)))
    parts = [part for part in (members[:cut], members[cut:]) if part]
    return [(name, (draw(SPACE) + ",").join(part)) for part in parts]


@st.composite
def cases(draw: st.DrawFn, text: str) -> str:
    """A text with some of its letters in the other case."""
    return "".join(draw(st.sampled_from([each.lower(), each.upper()])) for each in text)


@st.composite
def valid_heads(draw: st.DrawFn) -> bytes:
    fields = [
        *draw(lists("Upgrade", draw(cases("websocket")))),
        *draw(lists("Connection", draw(cases("upgrade")))),
        ("Sec-WebSocket-Accept", ACCEPT),
        *draw(st.lists(st.tuples(NAMES, VALUES), max_size=5)),
    ]
    end = draw(st.sampled_from(["\r\n", "\n"]))
    lines = [f"HTTP/1.{draw(st.sampled_from('01'))} 101 {draw(VALUES)}"]
    for name, value in draw(st.permutations(fields)):
        lines.append(f"{draw(cases(name))}:{draw(folds(value))}")
    return "".join(line + end for line in [*lines, ""]).encode("latin-1")


ANNOUNCING = st.lists(
    st.builds(
        lambda status, value: head_of(f"HTTP/1.1 {status}", f"Link: {value}"),
        st.sampled_from([100, 102, 103, 199]),
        VALUES,
    ),
    max_size=2,
).map(b"".join)

# Parts of heads, and what has no place in one.
PARTS = st.lists(
    st.sampled_from(
        [
            SWITCHING.encode(),
            UPGRADE.encode(),
            CONNECTION.encode(),
            ACCEPTING.encode(),
            b"HTTP/1.1 ",
            b"HTTP/1.1 100 Continue",
            b"HTTP/1.1 302 Found",
            b"HTTP/1.1 503 Service Unavailable",
            b"Location: ",
            b"Retry-After: ",
            b"Content-Length: ",
            b"Content-Type: ",
            b"Transfer-Encoding: chunked",
            b"Sec-WebSocket-Extensions: ",
            b"Sec-WebSocket-Accept: ",
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b" ",
            b":",
            b"\0",
        ]
    )
    | st.binary(max_size=8),
    max_size=20,
).map(b"".join)
ANSWERS = PARTS | PARTS.map(lambda parts: b"HTTP/1.1 " + parts) | st.binary(max_size=100)


@given(announcing=ANNOUNCING, head=valid_heads(), rest=st.binary(max_size=20))
def test_every_valid_head_is_accepted(announcing: bytes, head: bytes, rest: bytes) -> None:
    accepted, unread = judge([announcing + head + rest])

    assert isinstance(accepted, Head), accepted
    assert unread == rest


@given(
    answer=ANSWERS | st.tuples(ANNOUNCING, valid_heads(), ANSWERS).map(b"".join),
    cuts=st.none() | st.lists(st.integers(0, 300), max_size=4),
)
def test_the_cuts_of_the_stream_change_nothing_and_no_answer_raises_another_error(
    answer: bytes, cuts: list[int] | None
) -> None:
    places = range(len(answer)) if cuts is None else sorted(cuts)
    pieces = [answer[start:end] for start, end in itertools.pairwise([0, *places, len(answer)])]

    assert judge(pieces) == judge([answer])


@given(value=st.text(TEXT, max_size=40) | st.from_regex("[0-9A-Za-z, :+-]{1,40}"))
def test_no_retry_after_raises_anything(value: str) -> None:
    refusal(Head(503, {"retry-after": [value]}), "", 1e9)


# Refusals


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("20", 20.0),
        ("0", 0.0),
        ("9" * 30, 999999999.0),
        ("0" * 20 + "30", 30.0),
        (email.utils.formatdate(1_000_000_030, usegmt=True), 30.0),
        (email.utils.formatdate(999_999_990, usegmt=True), 0.0),
        ("Sunday, 09-Sep-01 01:47:10 GMT", 30.0),
        ("-1", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_has_two_forms(value: str, seconds: float | None) -> None:
    head = parse_head(head_of("HTTP/1.1 429 Too Many Requests", f"Retry-After: {value}"))

    error = refusal(head, "", 1_000_000_000.0)

    assert error.retry_after == seconds
    assert (f"Retry-After {seconds or 0:.0f} second" in str(error)) == (seconds is not None)


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_a_date_without_a_time_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of the three forms in which HTTP writes a date, read by a machine in Tokyo."""
    head = Head(503, {"retry-after": ["Sun Sep  9 01:47:10 2001"]})
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        error = refusal(head, "", 1_000_000_000.0)
    time.tzset()

    assert error.retry_after == 30.0


@pytest.mark.parametrize(
    "status, said", [(201, "no"), (300, "http://x/"), (308, "http://x/"), (503, "no")]
)
def test_only_a_redirect_is_told_by_where_it_leads(status: int, said: str) -> None:
    assert refusal(Head(status, {"location": ["http://x/"]}), "no", 0.0).said == said


@pytest.mark.parametrize(
    "fields, body, text",
    [
        ({}, b"error code: 1015", "error code: 1015"),
        ({"content-type": ["text/html; charset=UTF-8"]}, b"<p>no</p>", "<p>no</p>"),
        ({"content-type": ["Application/JSON"]}, b'{"code": 0}', '{"code": 0}'),
        ({"content-type": ["image/png"]}, b"\x89PNG", ""),
        ({"content-encoding": ["gzip"]}, b"\x1f\x8b", ""),
        ({"content-length": ["2"]}, b"no, and the next answer", "no"),
        ({"content-length": ["9" * 5000]}, b"no", "no"),
        ({"content-length": ["x"]}, b"no", "no"),
        ({"content-length": ["200000"]}, b"x" * 200_000, "x" * BODY_BYTES),
        ({}, b"a\r\n\t line\n", "a line"),
        ({}, b"\xff", "\N{REPLACEMENT CHARACTER}"),
        ({}, b"x" * 200_000, "x" * BODY_BYTES),
        ({"transfer-encoding": ["chunked"]}, b"3\r\nnot\r\n4;x=y\r\n now\r\n0\r\n\r\n", "not now"),
        ({"transfer-encoding": ["chunked"]}, b"2\r\nno\r\n0\r\n\r\n1\r\nx\r\n", "no"),
        ({"transfer-encoding": ["chunked"]}, b"ff\r\nno", "no"),
        ({"transfer-encoding": ["chunked"]}, b"no chunk", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_beginning_of_a_text_is_read(
    fields: dict[str, list[str]], body: bytes, text: str, size: int
) -> None:
    pieces = [body[place : place + size] for place in range(0, len(body), size)]

    assert read_beginning(Head(503, fields), pieces[0], Pieces(pieces[1:])) == text


@pytest.mark.parametrize("error", [TimeoutError, ConnectionResetError])
def test_a_body_that_does_not_come_hides_nothing(error: type[OSError]) -> None:
    def receive() -> bytes:
        raise error

    head = Head(503, {"content-length": ["100"]})
    assert read_beginning(head, b"no", receive) == "no"


def test_a_body_that_is_there_or_is_none_is_not_waited_for() -> None:
    def receive() -> bytes:
        raise AssertionError("there is nothing to wait for")

    assert read_beginning(Head(503, {"content-length": ["2"]}), b"no", receive) == "no"
    assert read_beginning(Head(503, {"content-length": ["0"]}), b"", receive) == ""
    assert read_beginning(Head(503, {"content-type": ["image/png"]}), b"", receive) == ""
