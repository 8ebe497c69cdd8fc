"""Get Gateway Bot: how many shards Discord recommends, and how many sessions a bot may start.

https://docs.discord.com/developers/events/gateway#get-gateway-bot
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from typing import Any, NamedTuple

import shardlib
from shardlib.answers import (
    BODY_WAIT,
    Head,
    UnusableAnswer,
    phrase_of,
    read_beginning,
    read_body,
    read_head,
    retry_after,
)
from shardlib.checks import check_at_least_one, check_not_negative, check_positive, check_type
from shardlib.deadline import SIGNAL_POLL_INTERVAL, Deadline
from shardlib.dial import check_proxy
from shardlib.errors import AuthenticationFailed, HTTPFailed
from shardlib.gateway import API_URL, API_VERSION, check_url, gateway_url, is_encrypted
from shardlib.interrupts import run_uninterrupted
from shardlib.opening import Opening
from shardlib.payloads import check_token, hide_token
from shardlib.proxies import is_this_machine
from shardlib.text import count
from shardlib.transport import Transport
from shardlib.waiting import Alarm

_ROUTE = "/gateway/bot"

_MAX_BODY = 1 << 20  # bytes; Discord's answer has some two hundred

# Seconds before the second and the third try, if the server answers with a status from 500 up.
_PAUSES = (0.5, 1.0)
_SHORTEST_PAUSE = 0.5  # seconds, whatever a server asks for

# Seconds beyond the timeout for the error that tells more than that the time is over.
_GRACE = 1.0

_LARGEST = 2**31 - 1  # of the numbers in the answer


class GatewayBot(NamedTuple):
    """What :func:`~shardlib.fetch_gateway_bot` returns.

    :ivar url: the Gateway's URL, a str, for :meth:`shardlib.Shard.connect`.
    :ivar shards: how many shards Discord recommends, an int.
    :ivar total: how many sessions the bot may start between two resets, an int.
    :ivar remaining: how many of these are left, an int.
    :ivar reset_after: seconds, a float, until `remaining` is `total` again; 0.0 if no session was
        started since that was last so. The next one begins the 24 hours until the number is reset.
    :ivar max_concurrency: how many shards may identify within five seconds, an int.
    """

    url: str
    shards: int
    total: int
    remaining: int
    reset_after: float
    max_concurrency: int


def check_gateway_bot(gateway_bot: GatewayBot) -> GatewayBot:
    """Check what a program of the user's has made, as an answer of Discord's is checked.

    :returns: it, unchanged.
    :raises ValueError: if a number cannot be, or the URL is that of no gateway; it may be empty if
        another one is used.
    :raises TypeError: if something has the wrong type.
    """
    if gateway_bot.url != "":
        gateway_url(gateway_bot.url, API_VERSION, None)
    check_at_least_one("GatewayBot.shards", gateway_bot.shards)
    check_at_least_one("GatewayBot.max_concurrency", gateway_bot.max_concurrency)
    for name in ("total", "remaining"):
        number = getattr(gateway_bot, name)
        check_type(f"GatewayBot.{name}", number, int)
        check_not_negative(f"GatewayBot.{name}", number)
    check_not_negative("GatewayBot.reset_after", gateway_bot.reset_after)
    return gateway_bot


def fetch_gateway_bot(
    token: str,
    *,
    api_url: str = API_URL,
    timeout: float = 10.0,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> GatewayBot:
    """Ask Discord how many shards it recommends, and how many sessions the bot may start.

    Blocks for `timeout` at most, on any thread, in callbacks as well; Ctrl-C ends it. If Discord
    asks to wait (status 429), or has a fault (status 500 or more, up to three tries), the request
    is repeated within that time. No redirect is followed: the token goes to no other host.

    :param token: the bot's token, a str without ``Bot`` in front.
    :param api_url: the base of Discord's HTTP API, a str: an ``https://`` URL, or an ``http://``
        one of this machine, such as :attr:`shardlib.testing.LocalGateway.http_url`.
    :param timeout: seconds, above 0, for all of it.
    :param ssl_context: an :class:`ssl.SSLContext`, or None for Python's default.
    :param proxy: URL of the proxy, as :class:`~shardlib.Shard` takes it; "" for none, None for that
        of the environment.
    :raises AuthenticationFailed: if the token is wrong (status 401); its ``code`` is None.
    :raises HTTPFailed: if the answer has another status than 200, or is not as documented.
    :raises ConnectionFailed: if there is no answer in time; the message says why.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if an argument cannot be used; an `api_url` to which the token would go
        unencrypted is one of these.
    :raises RuntimeError: if the system has no thread to give.
    """
    return GatewayBotRequest(token, api_url, timeout, ssl_context, proxy).wait()


def check_api_url(api_url: str, proxy: str | None) -> str:
    """The base of an API, checked, without a slash at its end.

    :param api_url: as :func:`fetch_gateway_bot` takes it.
    :param proxy: likewise.
    :raises ValueError: if it cannot be used.
    :raises TypeError: if it is not a str.
    """
    parts = check_url("api_url", api_url, "https", "http")
    if parts.query or not parts.path.isascii():
        raise ValueError(f"api_url must have an ASCII path and no query (?), not {api_url!r}")
    if parts.scheme == "http" and (proxy or not is_this_machine(parts.hostname or "")):
        raise ValueError(
            "api_url must begin with https://, or the token would be sent unencrypted; http:// is "
            f"for a server on this machine, http://127.0.0.1:8080 say, without a proxy: {api_url!r}"
        )
    return parts.geturl().rstrip("/")


class GatewayBotRequest:
    """One GET, which a thread of its own makes while the caller waits.

    So Ctrl-C splits nothing but the wait, and ends it on every system. The arguments are those of
    :func:`fetch_gateway_bot`.
    """

    def __init__(
        self,
        token: str,
        api_url: str = API_URL,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        check_token(token)
        check_proxy(proxy)
        check_positive("timeout", timeout)
        check_type("ssl_context", ssl_context, ssl.SSLContext, optional=True)
        self._token = token
        self._base = check_api_url(api_url, proxy)
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._deadline = Deadline(timeout)
        self._is_given_up = False
        self._given_up = Alarm()  # for the request's thread
        self._done = Alarm()  # for the caller
        self._opening = self._make_opening()
        self._result: GatewayBot | BaseException | None = None

    def wait(self) -> GatewayBot:
        """Make the request, and return what it brings."""
        latest = Deadline(self._timeout + _GRACE)
        try:
            run_uninterrupted(self._start)
            while not self._done.wait(SIGNAL_POLL_INTERVAL):
                if latest.remaining() == 0:  # the system looks a proxy up, and takes its time
                    raise self._opening.failure(TimeoutError(), "cannot ask")[0]
        finally:
            self.abort()
        result, self._result = self._result, None
        if isinstance(result, GatewayBot):
            return result
        assert result is not None
        try:
            raise result
        finally:
            del result  # else a cycle: its traceback refers to this frame

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name="gateway-bot", daemon=True).start()
        except RuntimeError as error:
            self._result = error
            self._done.ring()

    def abort(self) -> None:
        """End the request; :meth:`wait` raises. Any thread, at any time."""
        self._is_given_up = True  # before the opening is looked at: see _ask
        self._given_up.ring()
        self._opening.abort()

    def _make_opening(self) -> Opening:
        return Opening(
            self._base,
            ssl_context=self._ssl_context,
            proxy=self._proxy,
            timeout=self._timeout,
            hide_token=self._hide_token,
        )

    def _hide_token(self, text: str) -> str:
        return hide_token(text, self._token)

    # On the request's thread

    def _run(self) -> None:
        try:
            self._result = self._fetch()
        except BaseException as error:
            self._result = error  # until the caller takes it, or it would keep this frame
        finally:
            self._done.ring()

    def _fetch(self) -> GatewayBot:
        pauses = iter(_PAUSES)
        while True:
            head, body = self._ask()
            if head.status == 200:
                return self._interpret(body)
            if head.status == 401:
                raise AuthenticationFailed(None, f"{self._base} refused the token (status 401)")
            wait = _wait_asked_for(head, body)
            pause = next(pauses, None) if head.status >= 500 else None
            if head.status == 429:
                pause = wait
            if pause is not None:
                pause = max(pause, wait or 0.0, _SHORTEST_PAUSE)
            if pause is None or pause >= (self._deadline.remaining() or 0.0):
                raise self._refusal(head, body, wait)
            self._given_up.wait(pause)

    def _ask(self) -> tuple[Head, bytes]:
        """Connect, send the request, and return the answer; of a refusal's body the beginning."""
        opening = self._opening = self._make_opening()
        transport = None
        try:
            if self._is_given_up:  # by a caller that has not seen this opening
                opening.abort()
            transport = opening.dial(self._deadline)
            opening.start_tls(transport, self._deadline)
            opening.begin(f"GET {_ROUTE}")
            transport.send(self._request(), self._deadline)
            return self._read_answer(transport)
        except Exception as error:
            failure, cause = opening.failure(error, "cannot ask")
        finally:
            if transport is not None:
                transport.close()
        try:
            raise failure from cause
        finally:
            del failure, cause  # else a cycle: their tracebacks refer to this frame

    def _request(self) -> bytes:
        parts = check_url("api_url", self._base, "https", "http")
        lines = [
            f"GET {parts.path}{_ROUTE} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Authorization: Bot {self._token}",
            # In the form that developers/reference#user-agent asks for.
            f"User-Agent: DiscordBot (https://pypi.org/project/shardlib, {shardlib.__version__})",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "Connection: close",
        ]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")

    def _read_answer(self, transport: Transport) -> tuple[Head, bytes]:
        def receive(until: Deadline) -> bytes:
            if until.remaining() == 0:  # a server that keeps sending would stretch it
                raise TimeoutError
            return transport.receive(until)

        head, received = read_head(lambda: receive(self._deadline))
        if head.status == 200:
            if "content-encoding" in head.fields:
                raise UnusableAnswer(
                    "the body is encoded, which was not asked for",
                    ", ".join(head.members("content-encoding")),
                )
            return head, read_body(head, received, lambda: receive(self._deadline), _MAX_BODY)
        wait = Deadline(BODY_WAIT).earlier(self._deadline)
        return head, read_beginning(head, received, lambda: receive(wait)).encode()

    # What the answer means

    def _refusal(self, head: Head, body: bytes, wait: float | None) -> HTTPFailed:
        what = f"{self._base} answered GET {_ROUTE} with status {head.status}"
        message = f"{what} ({phrase_of(head.status)})"
        said = body.decode()
        if 300 <= head.status < 400 and "location" in head.fields:
            message += ", a redirect, which is not followed: the token is for that host alone"
            said = head.fields["location"][0]
        elif head.status == 429:
            when = "later" if wait is None else f"after {count(wait, 'second')}"
            message += f": too many requests come from this bot or this computer. Ask again {when}"
        elif head.status == 403:
            message += (
                ": Discord may have blocked this computer's address for a while, as it does after "
                "many refused requests. Stop other programs that use a wrong token, and ask later"
            )
        elif head.status == 404:
            message += ": is api_url the base of the API, with its version?"
        elif head.status >= 500:
            when = "later" if wait is None else f"after {count(wait, 'second')}"
            message += f": the server has a fault. Ask again {when}; https://discordstatus.com"
        said = self._hide_token(said)
        return HTTPFailed(head.status, said, self._hide_token(message), retry_after=wait)

    def _interpret(self, body: bytes) -> GatewayBot:
        try:
            return _parse(body, encrypted=self._base.startswith("https:"))
        except (ValueError, TypeError) as error:
            problem = str(error)
        beginning = " ".join(body[:4096].decode(errors="replace").split())
        raise HTTPFailed(
            200,
            self._hide_token(beginning),
            self._hide_token(
                f"{self._base} answered GET {_ROUTE}, but not as Discord documents it: {problem}. "
                "Is api_url right, and does another server answer in Discord's place?"
            ),
        )


def _parse(body: bytes, *, encrypted: bool) -> GatewayBot:
    """The answer, checked.

    :param encrypted: True if the Gateway's URL must ask for TLS.
    :raises ValueError: if it is not as documented; the message says what is wrong.
    :raises TypeError: likewise.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is not JSON") from None
    limit = _field(answer, "session_start_limit")
    url = _field(answer, "url")
    gateway_url(url, API_VERSION, None)
    if encrypted and not is_encrypted(url):
        raise ValueError("the gateway's URL is not encrypted, as that of the API is")
    return GatewayBot(
        url,
        _number(answer, "shards", 1),
        _number(limit, "total", 0),
        _number(limit, "remaining", 0),
        _number(limit, "reset_after", 0) / 1000,
        _number(limit, "max_concurrency", 1),
    )


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"{name} is missing")
    return value[name]


def _number(value: Any, name: str, least: int) -> int:
    number = _field(value, name)
    if type(number) is not int or not least <= number <= _LARGEST:
        shown = json.dumps(number)[:40]
        raise ValueError(f"{name} must be a whole number from {least} up, not {shown}")
    return number


def _wait_asked_for(head: Head, body: bytes) -> float | None:
    """Seconds that a refusal asks to wait, as developers/topics/rate-limits has it; or None."""
    wait = retry_after(head, time.time())
    if wait is not None or head.status != 429:
        return wait
    try:
        seconds = json.loads(body)["retry_after"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    is_number = type(seconds) in (int, float) and 0 <= seconds < float("inf")
    return float(seconds) if is_number else None
