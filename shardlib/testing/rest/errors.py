"""Errors as Discord's HTTP API returns them.

The codes are those of the page Opcodes and Status Codes, section JSON Error Codes. The form of an
error with the path of each invalid field is that of the page API Reference, "Error Messages".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ErrorCode:
    """One kind of error: its HTTP status, its JSON error code, and its message."""

    status: int
    code: int
    message: str


BAD_REQUEST = ErrorCode(400, 0, "400: Bad Request")
UNAUTHORIZED = ErrorCode(401, 0, "401: Unauthorized")
NOT_FOUND = ErrorCode(404, 0, "404: Not Found")
METHOD_NOT_ALLOWED = ErrorCode(405, 0, "405: Method Not Allowed")
UNKNOWN_CHANNEL = ErrorCode(404, 10003, "Unknown Channel")
UNKNOWN_GUILD = ErrorCode(404, 10004, "Unknown Guild")
UNKNOWN_MEMBER = ErrorCode(404, 10007, "Unknown Member")
UNKNOWN_MESSAGE = ErrorCode(404, 10008, "Unknown Message")
UNKNOWN_ROLE = ErrorCode(404, 10011, "Unknown Role")
UNKNOWN_USER = ErrorCode(404, 10013, "Unknown User")
UNKNOWN_EMOJI = ErrorCode(400, 10014, "Unknown Emoji")
UNKNOWN_WEBHOOK = ErrorCode(404, 10015, "Unknown Webhook")
UNKNOWN_INTERACTION = ErrorCode(404, 10062, "Unknown interaction")
UNKNOWN_COMMAND = ErrorCode(404, 10063, "Unknown application command")
NOT_YOUR_APPLICATION = ErrorCode(
    403, 20012, "You are not authorized to perform this action on this application"
)
TOO_MANY_PINS = ErrorCode(400, 30003, "Maximum number of pins reached for the channel (250)")
TOO_MANY_REACTIONS = ErrorCode(400, 30010, "Maximum number of reactions reached (20)")
TOO_MANY_FILES = ErrorCode(400, 30015, "Maximum number of attachments in a message reached (10)")
TOO_MANY_COMMANDS = ErrorCode(400, 30032, "Maximum number of application commands reached")
TOO_MANY_COMMANDS_CREATED = ErrorCode(
    429, 30034, "Max number of daily application command creates has been reached (200)"
)
ENTITY_TOO_LARGE = ErrorCode(413, 40005, "Request entity too large")
ALREADY_ACKNOWLEDGED = ErrorCode(400, 40060, "Interaction has already been acknowledged.")
NOT_IN_DM = ErrorCode(403, 50003, "Cannot execute action on a DM channel")
NOT_THE_AUTHOR = ErrorCode(403, 50005, "Cannot edit a message authored by another user")
EMPTY_MESSAGE = ErrorCode(400, 50006, "Cannot send an empty message")
NOT_A_TEXT_CHANNEL = ErrorCode(400, 50008, "Cannot send messages in a non-text channel")
WRONG_NUMBER_TO_DELETE = ErrorCode(
    400,
    50016,
    "Provided too few or too many messages to delete. Must provide at least 2 and at most 100 "
    "messages to delete.",
)
INVALID_WEBHOOK_TOKEN = ErrorCode(401, 50027, "Invalid Webhook Token")
INVALID_RECIPIENT = ErrorCode(400, 50033, "Invalid Recipient(s)")
TOO_OLD_TO_BULK_DELETE = ErrorCode(400, 50034, "A message provided was too old to bulk delete.")
INVALID_FORM = ErrorCode(400, 50035, "Invalid Form Body")
INVALID_API_VERSION = ErrorCode(400, 50041, "Invalid API version provided")
FILE_TOO_LARGE = ErrorCode(413, 50045, "File uploaded exceeds the maximum size")
INVALID_JSON = ErrorCode(400, 50109, "The request body contains invalid JSON.")


class ApiError(Exception):
    """A request fails, and the client gets an error.

    :param error: the kind of error.
    :param details: further keys of the body, such as ``errors``.
    :param headers: headers of the response.
    """

    def __init__(
        self,
        error: ErrorCode,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{error.status}, code {error.code}: {error.message}")
        self.status = error.status
        self.body = {"message": error.message, "code": error.code, **(details or {})}
        self.headers = headers or {}


class Problems:
    """The invalid fields of one body, each by its path."""

    def __init__(self) -> None:
        self._tree: dict[str, Any] = {}

    def add(self, path: tuple[str | int, ...], code: str, message: str) -> None:
        """Add a problem.

        :param path: the keys and indexes that lead to the field; empty for the body as a whole.
        :param code: Discord's name of the problem, ``BASE_TYPE_REQUIRED`` for instance.
        :param message: what is wrong, for people.
        """
        node = self._tree
        for key in path:
            node = node.setdefault(str(key), {})
        node.setdefault("_errors", []).append({"code": code, "message": message})

    def error(self) -> ApiError:
        """Return the error that names all problems."""
        return ApiError(INVALID_FORM, {"errors": self._tree})

    def raise_if_any(self) -> None:
        """Refuse the body if it has a problem.

        :raises ApiError: if any problem was added.
        """
        if self._tree:
            raise self.error()


def invalid_form(code: str, message: str, *path: str | int) -> ApiError:
    """Return the error for a body, or a parameter, with one problem.

    :param code: Discord's name of the problem.
    :param message: what is wrong, for people.
    :param path: the keys and indexes that lead to the field.
    """
    problems = Problems()
    problems.add(path, code, message)
    return problems.error()
