"""Redactor: a copy of an event's data without what people wrote, and without secrets.

The copy keeps what is known to be harmless, and replaces every other text. So a field that Discord
adds later is replaced, too.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from typing import Any

# What stands in place of a secret.
_REMOVED = "removed"

# Texts that are kept, by the name of their field, if they look as documented. An item of an array
# belongs to the array's field.
_SNOWFLAKE = re.compile("[0-9]+")
_SHAPES = {
    **dict.fromkeys(
        ("id", "roles", "values", "permissions", "app_permissions", "allow", "deny"), _SNOWFLAKE
    ),
    **dict.fromkeys(
        ("status", "desktop", "mobile", "web", "embedded"),
        re.compile("online|idle|dnd|offline|invisible"),
    ),
    **dict.fromkeys(
        ("locale", "preferred_locale", "guild_locale"), re.compile("[a-z]{2}(-[A-Z0-9]{2,3})?")
    ),
    "discriminator": re.compile("0"),
    "features": re.compile("[A-Z0-9_]+"),
    "type": re.compile("[a-z_]+"),
}
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")

# Fields of a command or component that the bot's developer has named, and no user.
_DEVELOPERS_FIELDS = frozenset({"name", "custom_id"})

# Fields that hold a number if a user or a moderator has typed one.
_TYPED_FIELDS = frozenset({"value", "old_value", "new_value"})

_URL = "https://redacted.invalid/"


def without_secrets(event: str, data: Any) -> Any:
    """Return an event's data without tokens, and READY without the id of its session.

    :param event: the event's name.
    :param data: the event's ``d``, which stays as it is.
    """
    data = _without_tokens(data)
    if event == "READY" and isinstance(data, dict) and "session_id" in data:
        data = {**data, "session_id": _REMOVED}
    return data


def _without_tokens(data: Any) -> Any:
    if isinstance(data, dict):
        return {
            key: _REMOVED if key == "token" and isinstance(value, str) else _without_tokens(value)
            for key, value in data.items()
        }
    return [_without_tokens(each) for each in data] if isinstance(data, list) else data


class Redactor:
    """Replaces what people wrote.

    One redactor replaces equal texts by equal texts, of the same length unless it is a URL, so that
    one can still see that a name has changed, or who wrote twice. What stands in place is made with
    a random key that is kept nowhere, so that guessing a text does not confirm it.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def redact(self, event: str, data: Any) -> Any:
        """Return a copy of an event's data, redacted.

        :param event: the event's name.
        :param data: the event's ``d``, which stays as it is.
        """
        copy = self._copy("", data, frozenset())
        is_command = event == "INTERACTION_CREATE" and isinstance(data, dict)
        if is_command and isinstance(data.get("data"), dict):
            invoked = self._copy("", data["data"], _DEVELOPERS_FIELDS)
            if "resolved" in invoked:  # the users, roles and channels that the command is about
                invoked["resolved"] = copy["data"]["resolved"]
            copy["data"] = invoked
        return copy

    def _copy(self, field: str, value: Any, kept: frozenset[str]) -> Any:
        """Return a redacted copy of a value.

        :param field: the name of the field that holds the value.
        :param value: the value.
        :param kept: names of fields whose texts are kept, whatever they are.
        """
        if isinstance(value, dict):
            copy = {key: self._copy(key, each, kept) for key, each in value.items()}
            if "id" in value and value["id"] is None and _is_emoji(value.get("name")):
                copy["name"] = value["name"]
            return copy
        if isinstance(value, list):
            return [self._copy(field, each, kept) for each in value]
        if isinstance(value, str):
            is_kept = field in kept or _is_harmless(field, value)
            return value if is_kept else self._replace(value)
        if field in _TYPED_FIELDS and not isinstance(value, bool) and value is not None:
            return 0
        return value

    def _replace(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), key=self._key, digest_size=32)
        if text.startswith(("http://", "https://")):
            return _URL + digest.hexdigest()
        # Digits stay digits, for clients that make a number of them.
        letters = str(int(digest.hexdigest(), 16)) if text.isdecimal() else digest.hexdigest()
        return (letters * (len(text) // len(letters) + 1))[: len(text)]


def _is_harmless(field: str, text: str) -> bool:
    if field.endswith(("_id", "_ids")):
        field = "id"
    shape = _SHAPES.get(field)
    if shape is not None and shape.fullmatch(text):
        return True
    return not text or _TIMESTAMP.fullmatch(text) is not None


def _is_emoji(name: Any) -> bool:
    """Return whether a name is that of a standard emoji, which is the emoji itself."""
    if not isinstance(name, str) or not name:
        return False
    kinds = {unicodedata.category(character) for character in name}
    return "So" in kinds and kinds <= {"So", "Sk", "Sm", "Po", "Mn", "Me", "Cf", "Nd"}
