"""Tables that say what a body must look like, and the check of a body against its table.

A table is an :class:`Object`. :func:`check` returns the body as Discord would read it, or raises
the error that names every invalid field by its path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shardlib.testing.rest.errors import ApiError, Problems, invalid_form
from shardlib.testing.validation import is_int

Path = tuple["str | int", ...]

_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[-+][0-9]{2}(?::?[0-9]{2})?)?)?"
)

# An integer in a text. int() takes spaces, underscores and digits of all scripts as well.
_INTEGER = re.compile(r"-?[0-9]{1,20}")


class Kind(Protocol):
    """What a value must be."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """Return the value as Discord reads it, and add what is wrong with it.

        :param value: the value that the client sent, not null.
        :param path: the keys and indexes that lead to the value.
        :param problems: the problems of the body.
        """


#: A check across the fields of an object, which adds what is wrong to the problems.
Rule = Callable[[dict[str, Any], Path, Problems], None]


@dataclass(frozen=True)
class Text:
    """A string, or a number that Discord reads as one."""

    least: int = 0
    most: int | None = None
    #: Whether spaces around the text do not count, and are removed.
    strip: bool = False

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            problems.add(path, "STRING_TYPE_CONVERT", f'Could not interpret "{value}" as string.')
            return ""
        text = str(value).strip() if self.strip else str(value)
        _check_length(len(text), self.least, self.most, path, problems)
        return text


@dataclass(frozen=True)
class Url:
    """A URL, with one of a few schemes."""

    most: int
    schemes: Sequence[str] = ("http", "https")

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        text = Text(0, self.most, strip=True).check(value, path, problems)
        scheme, separator, rest = text.partition("://")
        if text and not (separator and rest and not any(map(str.isspace, text))):
            problems.add(path, "URL_TYPE_INVALID_URL", "Not a well formed URL.")
        elif text and scheme.lower() not in self.schemes:
            allowed = ", ".join(map(repr, self.schemes))
            problem = f'Scheme "{scheme}" is not supported. Scheme must be one of ({allowed}).'
            problems.add(path, "URL_TYPE_INVALID_SCHEME", problem)
        return text


@dataclass(frozen=True)
class Timestamp:
    """A date and time in ISO 8601."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if not isinstance(value, str) or _TIMESTAMP.fullmatch(value) is None:
            problem = f"Could not parse {value}. Should be ISO8601."
            problems.add(path, "DATE_TIME_TYPE_PARSE", problem)
        return value


@dataclass(frozen=True)
class Integer:
    """An integer, or a string of digits."""

    least: int | None = None
    most: int | None = None

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        number = _to_int(value)
        if number is None:
            problems.add(path, "NUMBER_TYPE_COERCE", f'Value "{value}" is not int.')
        elif self.least is not None and number < self.least:
            problem = f"int value should be greater than or equal to {self.least}."
            problems.add(path, "NUMBER_TYPE_MIN", problem)
        elif self.most is not None and number > self.most:
            problem = f"int value should be less than or equal to {self.most}."
            problems.add(path, "NUMBER_TYPE_MAX", problem)
        return number


@dataclass(frozen=True)
class Number:
    """A number, with or without a fraction."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            problems.add(path, "NUMBER_TYPE_COERCE", f'Value "{value}" is not float.')
        return value


@dataclass(frozen=True)
class Boolean:
    """True or false."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        # Queries, and forms without payload_json, have texts ("Boolean Query Strings").
        texts = {"true": True, "1": True, "false": False, "0": False}
        found = texts.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            problems.add(path, "BOOLEAN_TYPE_CONVERT", "Must be either true or false.")
        return found


@dataclass(frozen=True)
class Snowflake:
    """An id, as a string of digits or as an integer."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        number = _to_int(value)
        if number is None or not 0 <= number < 1 << 64:
            problems.add(path, "NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.')
        return str(value)


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    choices: Sequence[Any]

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if isinstance(value, bool) or value not in self.choices:
            allowed = ", ".join(map(repr, self.choices))
            problems.add(path, "BASE_TYPE_CHOICES", f"Value must be one of ({allowed}).")
        return value


@dataclass(frozen=True)
class ListOf:
    """A list, each of whose items is of one kind."""

    item: Kind
    least: int = 0
    most: int | None = None

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if not isinstance(value, list):
            problems.add(path, "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
            return []
        _check_length(len(value), self.least, self.most, path, problems)
        return [self.item.check(each, (*path, index), problems) for index, each in enumerate(value)]


@dataclass(frozen=True)
class Anything:
    """Any value, which the gateway takes as it is."""

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        return value


@dataclass(frozen=True)
class Field:
    """One field of an object."""

    kind: Kind
    required: bool = False


@dataclass(frozen=True)
class Object:
    """An object with known fields. As at Discord, unknown fields are dropped, and null is absent.

    A check across fields may follow the table, as ``rule``.
    """

    fields: Mapping[str, Field | Kind]
    rule: Rule | None = None

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        if not isinstance(value, dict):
            problems.add(path, "MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
            return {}
        checked: dict[str, Any] = {}
        for name, entry in self.fields.items():
            field = entry if isinstance(entry, Field) else Field(entry)
            if value.get(name) is not None:
                checked[name] = field.kind.check(value[name], (*path, name), problems)
            elif field.required:
                problems.add((*path, name), "BASE_TYPE_REQUIRED", "This field is required")
            elif name in value:
                checked[name] = None
        if self.rule is not None:
            self.rule(checked, path, problems)
        return checked


@dataclass(frozen=True)
class Variant:
    """An object whose field ``type`` says which table applies."""

    tables: Mapping[int, Object]
    #: The types that are allowed here; None for all that have a table.
    types: Sequence[int] | None = None

    def check(self, value: Any, path: Path, problems: Problems) -> Any:
        """See :class:`Kind`."""
        kind = value.get("type") if isinstance(value, dict) else None
        types = tuple(self.tables) if self.types is None else self.types
        table = self.tables[kind] if kind is not None and is_int(kind) and kind in types else None
        if table is None:
            known = Object({"type": Field(OneOf(types), required=True)})
            return known.check(value, path, problems)
        return {"type": kind, **table.check(value, path, problems)}


def check(kind: Kind, body: Any) -> Any:
    """Return a body as its table reads it.

    :param kind: the table.
    :param body: the decoded body; None for no body, which is an empty object.
    :raises ApiError: if any field is invalid; the error names all of them.
    """
    problems = Problems()
    checked = kind.check({} if body is None else body, (), problems)
    problems.raise_if_any()
    return checked


def check_query(query: Mapping[str, str], table: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the known parameters of a query, each as its kind reads it.

    :param query: the query.
    :param table: the kind of each parameter.
    :raises ApiError: if any parameter is invalid.
    """
    found: dict[str, Any] = check(Object(table), dict(query))
    return found


def snowflake_error(name: str, value: str) -> ApiError:
    """Return the error for a part of the path that is no id.

    :param name: the name of the part.
    :param value: the part.
    """
    return invalid_form("NUMBER_TYPE_COERCE", f'Value "{value}" is not snowflake.', name)


def _to_int(value: Any) -> int | None:
    if is_int(value):
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return None


def _check_length(
    length: int, least: int, most: int | None, path: Path, problems: Problems
) -> None:
    if least <= length and (most is None or length <= most):
        return
    if most is None:
        problems.add(path, "BASE_TYPE_MIN_LENGTH", f"Must be {least} or more in length.")
    elif least == 0:
        problems.add(path, "BASE_TYPE_MAX_LENGTH", f"Must be {most} or fewer in length.")
    else:
        problem = f"Must be between {least} and {most} in length."
        problems.add(path, "BASE_TYPE_BAD_LENGTH", problem)
