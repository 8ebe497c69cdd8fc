"""Uploaded files, which the gateway serves at the URLs of the attachments."""

from __future__ import annotations

from shardlib.testing.rest.errors import NOT_FOUND, ApiError
from shardlib.testing.rest.multipart import File
from shardlib.testing.rest.newest import Newest
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.response import Response
from shardlib.testing.rest.router import Call, Route

_LIMIT = RateLimit("attachments", 1000, 1.0)

# The most files that the gateway keeps, and the most bytes of them.
_MAX_FILES = 100
_MAX_BYTES = 64 * 1024 * 1024


class Files:
    """The newest uploaded files. The callers hold the gateway's lock."""

    def __init__(self) -> None:
        self._files: Newest[tuple[str, File]] = Newest(_MAX_FILES, _MAX_BYTES)

    def routes(self) -> list[Route]:
        """Return the route at which the gateway serves the files."""
        template = "/attachments/{channel_id}/{attachment_id}/{filename}"
        return [Route("GET", template, self._get, _LIMIT, needs_token=False, counts_globally=False)]

    def add(self, attachment_id: str, file: File) -> None:
        """Keep a file.

        :param attachment_id: the id of the attachment.
        :param file: the file.
        """
        self._files.add((attachment_id, file), len(file.content))

    def _get(self, call: Call) -> Response:
        for attachment_id, file in self._files:
            if attachment_id == call["attachment_id"]:
                kind = file.content_type
                if kind is None or not kind.isprintable():
                    kind = "application/octet-stream"
                return Response(200, file.content, {"Content-Type": kind})
        raise ApiError(NOT_FOUND)
