"""What an application command looks like, with its documented limits (Application Commands)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from shardlib.testing.rest.errors import Problems
from shardlib.testing.rest.forms import (
    Anything,
    Boolean,
    Field,
    Integer,
    Kind,
    ListOf,
    Number,
    Object,
    OneOf,
    Path,
    Text,
)

#: Command types.
CHAT_INPUT, USER, MESSAGE = 1, 2, 3

#: Option types.
SUB_COMMAND, SUB_COMMAND_GROUP, STRING, INTEGER, BOOLEAN = 1, 2, 3, 4, 5
USER_OPTION, CHANNEL, ROLE, MENTIONABLE, NUMBER, ATTACHMENT = 6, 7, 8, 9, 10, 11

#: The most commands of each type in one scope.
MAX_COMMANDS = {CHAT_INPUT: 100, USER: 15, MESSAGE: 15}

# The most characters of all names, descriptions and values of a command.
_MAX_SIZE = 8000

# Letters and digits of any script, and all characters of Devanagari and Thai.
_NAME = re.compile(r"[-_'\w\u0900-\u097f\u0e00-\u0e7f]+")

# The options that may nest in a command, a subcommand group and a subcommand.
_NESTED = {
    SUB_COMMAND_GROUP: (SUB_COMMAND,),
    SUB_COMMAND: tuple(range(STRING, ATTACHMENT + 1)),
}


# API Reference, "Locales".
_LOCALES = tuple(
    "id da de en-GB en-US es-ES es-419 fr hr it lt hu nl no pl pt-BR ro fi sv-SE vi tr cs el bg "
    "ru uk hi th zh-CN ja zh-TW ko".split()
)


@dataclass(frozen=True)
class _Localizations:
    """Texts by locale."""

    text: Kind

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`~shardlib.testing.rest.forms.Kind`."""
        if not isinstance(value, dict):
            problems.add(path, "DICT_TYPE_CONVERT", "Only dictionaries may be used in a DictType")
            return {}
        for locale in value:
            OneOf(_LOCALES).check(locale, (*path, locale), problems)
        return {
            locale: self.text.check(text, (*path, locale), problems)
            for locale, text in value.items()
        }


def _check_names(named: dict[str, Any], path: Path, problems: Problems) -> None:
    """Check the name of a slash command or of an option, in all languages."""
    names: dict[Path, str] = {("name",): named.get("name") or ""}
    for locale, text in (named.get("name_localizations") or {}).items():
        names["name_localizations", locale] = text
    for where, name in names.items():
        if name and (_NAME.fullmatch(name) is None or name != name.lower()):
            problem = "Command name is invalid"
            problems.add((*path, *where), "APPLICATION_COMMAND_INVALID_NAME", problem)


def _check_options(options: list[dict[str, Any]], path: Path, problems: Problems) -> None:
    """Check the order and the names of options that stand side by side."""
    optional_seen = False
    names = set()
    has_subcommands = any(option.get("type") in _NESTED for option in options)
    for index, option in enumerate(options):
        if has_subcommands and option.get("type") not in _NESTED:
            problems.add(
                (*path, "options", index),
                "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID",
                "Sub-command and sub-command group option types are mutually exclusive to all "
                "other types",
            )
        if option.get("required") and optional_seen:
            problems.add(
                (*path, "options", index),
                "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID",
                "Required options must be placed before non-required options",
            )
        optional_seen = optional_seen or not option.get("required")
        if option.get("name") in names:
            problems.add(
                (*path, "options", index),
                "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS",
                "Option name already exists",
            )
        names.add(option.get("name"))


def _check_option(option: dict[str, Any], path: Path, problems: Problems) -> None:
    _check_names(option, path, problems)
    options = option.get("options") or []
    allowed = _NESTED.get(option.get("type") or STRING, ())
    for index, nested in enumerate(options):
        if nested.get("type") not in allowed:
            choices = ", ".join(map(str, allowed))
            problem = f"Value must be one of ({choices})."
            problems.add((*path, "options", index, "type"), "BASE_TYPE_CHOICES", problem)
    _check_options(options, path, problems)
    if option.get("autocomplete") and option.get("choices"):
        problem = "Autocomplete and choices exclude each other"
        problems.add((*path, "autocomplete"), "AUTOCOMPLETE_WITH_CHOICES", problem)
    kinds: dict[int | None, Kind] = {
        STRING: Text(1, 100),
        INTEGER: Integer(),
        NUMBER: Number(),
    }
    kind = kinds.get(option.get("type"))
    names = set()
    for index, choice in enumerate(option.get("choices") or ()):
        if kind is not None and choice.get("value") is not None:
            kind.check(choice["value"], (*path, "choices", index, "value"), problems)
        if choice.get("name") in names:
            problems.add(
                (*path, "choices", index),
                "APPLICATION_COMMAND_OPTIONS_CHOICE_NAME_ALREADY_EXISTS",
                "Option choice name already exists",
            )
        names.add(choice.get("name"))


_CHOICE = Object(
    {
        "name": Field(Text(1, 100), required=True),
        "name_localizations": _Localizations(Text(1, 100)),
        "value": Field(Anything(), required=True),
    }
)

_OPTION_FIELDS: dict[str, Field | Kind] = {
    "type": Field(OneOf(tuple(range(1, 12))), required=True),
    "name": Field(Text(1, 32), required=True),
    "name_localizations": _Localizations(Text(1, 32)),
    "description": Field(Text(1, 100), required=True),
    "description_localizations": _Localizations(Text(1, 100)),
    "required": Boolean(),
    "choices": ListOf(_CHOICE, most=25),
    "channel_types": ListOf(Integer()),
    "min_value": Number(),
    "max_value": Number(),
    "min_length": Integer(0, 6000),
    "max_length": Integer(1, 6000),
    "autocomplete": Boolean(),
    "file_types": ListOf(Text(1), most=10),
}
_OPTION = Object(_OPTION_FIELDS, rule=_check_option)
_OPTION_FIELDS["options"] = ListOf(_OPTION, most=25)


def _size(part: dict[str, Any]) -> int:
    """Return the number of characters that count towards the limit of a command."""
    size = 0
    for key in ("name", "description"):
        texts = [part.get(key) or "", *(part.get(f"{key}_localizations") or {}).values()]
        size += max(len(text) for text in texts)
    if isinstance(part.get("value"), str):
        size += len(part["value"])
    return size + sum(_size(each) for key in ("options", "choices") for each in part.get(key) or ())


def _check_command(command: dict[str, Any], path: Path, problems: Problems) -> None:
    kind = command.get("type") or CHAT_INPUT
    if kind == CHAT_INPUT:
        _check_names(command, path, problems)
    elif command.get("description") or command.get("options"):
        problems.add(
            path,
            "APPLICATION_COMMAND_CONTEXT_MENU_DESCRIPTION_CANNOT_BE_SET",
            "Context menu commands have neither description nor options",
        )
    _check_options(command.get("options") or [], path, problems)
    if _size(command) > _MAX_SIZE:
        problem = f"Command exceeds maximum size ({_MAX_SIZE})"
        problems.add(path, "APPLICATION_COMMAND_TOO_LARGE", problem)


def _check_new_command(command: dict[str, Any], path: Path, problems: Problems) -> None:
    _check_command(command, path, problems)
    if (command.get("type") or CHAT_INPUT) == CHAT_INPUT and not command.get("description"):
        problems.add((*path, "description"), "BASE_TYPE_REQUIRED", "This field is required")


_COMMAND_FIELDS: dict[str, Field | Kind] = {
    "name": Text(1, 32),
    "name_localizations": _Localizations(Text(1, 32)),
    "description": Text(0, 100),
    "description_localizations": _Localizations(Text(1, 100)),
    "options": ListOf(_OPTION, most=25),
    "default_member_permissions": Text(1),
    "dm_permission": Boolean(),
    "default_permission": Boolean(),
    "nsfw": Boolean(),
    "integration_types": ListOf(OneOf((0, 1))),
    "contexts": ListOf(OneOf((0, 1, 2))),
}

#: The body of Edit Application Command.
EDIT_COMMAND = Object(_COMMAND_FIELDS, rule=_check_command)

#: The body of Create Application Command.
CREATE_COMMAND = Object(
    {
        **_COMMAND_FIELDS,
        "name": Field(Text(1, 32), required=True),
        "type": OneOf((CHAT_INPUT, USER, MESSAGE)),
    },
    rule=_check_new_command,
)

#: The body of Bulk Overwrite Application Commands.
OVERWRITE_COMMANDS = ListOf(CREATE_COMMAND, most=sum(MAX_COMMANDS.values()))
