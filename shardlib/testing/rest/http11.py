"""HTTP/1.1 with one client, as bytes: no socket, no thread."""

from __future__ import annotations

import h11

from shardlib.testing.rest.errors import ENTITY_TOO_LARGE, ApiError, ErrorCode
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.response import Response

#: The most bytes of a body (Message, "Create Message", "Limitations").
MAX_BODY = 25 * 1024 * 1024

_MAX_HEAD = 64 * 1024


class HttpParser:
    """Parses the requests of one client, and frames the responses.

    A client may keep the connection for many requests. The parser gives the next request only
    after the response to the former one.
    """

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._output = bytearray()
        # Whether the last request was HEAD, whose response has no body.
        self._is_head = False
        # All bytes since the last response, until the parser knows that the request that they begin
        # with asks for no WebSocket. aiohttp asks for one on a connection that it has kept.
        self._unclaimed: bytearray | None = bytearray()

    def receive(self, data: bytes) -> None:
        """Take bytes from the client.

        :param data: the bytes, cut anywhere.
        """
        if self._unclaimed is not None:
            self._unclaimed += data
        self._h11.receive_data(data)

    def next_request(self) -> ReceivedRequest | None:
        """Return the next request if it is complete; else None.

        :raises ApiError: if the client sends no HTTP/1.1, or too large a body. The connection can
            carry one last response.
        """
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                raise ApiError(ErrorCode(status, 0, f"{status}: {error}")) from None
            if isinstance(event, h11.Request):
                self._head = event
                if not _asks_for_websocket(event):
                    self._unclaimed = None
                if int(dict(event.headers).get(b"content-length", b"0")) > MAX_BODY:
                    raise ApiError(ENTITY_TOO_LARGE)
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_BODY:
                    raise ApiError(ENTITY_TOO_LARGE)
            elif isinstance(event, h11.EndOfMessage):
                return self._finish_request()
            else:
                if event is h11.NEED_DATA and self._h11.they_are_waiting_for_100_continue:
                    interim = h11.InformationalResponse(status_code=100, headers=[])
                    self._output += self._h11.send(interim) or b""
                return None

    def _finish_request(self) -> ReceivedRequest:
        head, self._head = self._head, None
        body, self._body = bytes(self._body), bytearray()
        assert head is not None
        self._is_head = head.method == b"HEAD"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return ReceivedRequest(
            head.method.decode("latin-1"), head.target.decode("latin-1"), headers, body
        )

    def handshake(self) -> bytes | None:
        """Return the bytes of the last request and all after it, if it asks for a WebSocket.

        None if the request asks for something else.

        After that the connection is no longer HTTP, and the parser's work is done.
        """
        return None if self._unclaimed is None else bytes(self._unclaimed)

    def respond(self, response: Response) -> bool:
        """Respond to the request that :meth:`next_request` returned last.

        :param response: the response.
        :returns: whether the client may send another request on this connection.
        """
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.fields
        ]
        head = h11.Response(
            status_code=response.status, headers=headers, reason=response.phrase.encode()
        )
        self._output += self._h11.send(head) or b""
        if response.body and not self._is_head:
            self._output += self._h11.send(h11.Data(data=response.body)) or b""
        self._output += self._h11.send(h11.EndOfMessage()) or b""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._unclaimed = bytearray(self._h11.trailing_data[0])
        self._h11.start_next_cycle()
        return True

    def output(self) -> bytes:
        """Return the bytes to send to the client, each once."""
        output, self._output = bytes(self._output), bytearray()
        return output


def _asks_for_websocket(request: h11.Request) -> bool:
    return any(
        name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers
    )
