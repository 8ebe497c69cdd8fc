"""What message components look like (page Components, "Component Reference")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardlib.testing.rest.errors import Problems
from shardlib.testing.rest.forms import (
    Anything,
    Boolean,
    Field,
    Integer,
    Kind,
    ListOf,
    Object,
    OneOf,
    Path,
    Rule,
    Snowflake,
    Text,
    Url,
    Variant,
)

#: Component types.
ACTION_ROW, BUTTON, STRING_SELECT, TEXT_INPUT = 1, 2, 3, 4
USER_SELECT, ROLE_SELECT, MENTIONABLE_SELECT, CHANNEL_SELECT = 5, 6, 7, 8
SECTION, TEXT_DISPLAY, THUMBNAIL, MEDIA_GALLERY, FILE, SEPARATOR = 9, 10, 11, 12, 13, 14
CONTAINER, LABEL, FILE_UPLOAD, RADIO_GROUP, CHECKBOX_GROUP, CHECKBOX = 17, 18, 19, 21, 22, 23

_SELECTS = (STRING_SELECT, USER_SELECT, ROLE_SELECT, MENTIONABLE_SELECT, CHANNEL_SELECT)

# Where components may be, by type.
_IN_ROW = (BUTTON, *_SELECTS, TEXT_INPUT)
_IN_CONTAINER = (ACTION_ROW, SECTION, TEXT_DISPLAY, MEDIA_GALLERY, FILE, SEPARATOR)
_IN_LABEL = (*_SELECTS, TEXT_INPUT, FILE_UPLOAD, RADIO_GROUP, CHECKBOX_GROUP, CHECKBOX)
_IN_MODAL = (ACTION_ROW, TEXT_DISPLAY, LABEL)
_IN_MESSAGE = (*_IN_CONTAINER, CONTAINER)

# Button styles that open a page and that sell something: neither sends an interaction.
_LINK, _PREMIUM = 5, 6

# The most components of a message with the flag IS_COMPONENTS_V2, nested ones counted as well, and
# the most action rows of any other message.
_MAX_COMPONENTS = 40
_MAX_ROWS = 5

# The most characters of all text displays of a message.
_MAX_TEXT = 4000

# By component type. Filled below, because some tables refer to all of them.
_TABLES: dict[int, Object] = {}

#: Any component, and one at the top of a modal. Which may be at the top of a message depends on the
#: message's flags, see :func:`check_layout`.
COMPONENT = Variant(_TABLES)
MODAL_COMPONENT = Variant(_TABLES, _IN_MODAL)

_ID = Field(Text(1, 100), required=True)


def _component(rule: Rule | None = None, **fields: Field | Kind) -> Object:
    return Object({"id": Integer(0), **fields}, rule=rule)


def _any_of(types: tuple[int, ...], most: int | None = None) -> Field:
    return Field(ListOf(Variant(_TABLES, types), 1, most), required=True)


def _check_button(button: dict[str, Any], path: Path, problems: Problems) -> None:
    style = button.get("style")
    needed = {_LINK: "url", _PREMIUM: "sku_id"}.get(style, "custom_id") if style else None
    if needed is not None and button.get(needed) is None:
        problems.add((*path, needed), "BASE_TYPE_REQUIRED", "This field is required")
    if button.get("custom_id") is not None and button.get("url") is not None:
        problem = "A custom id and url cannot both be specified"
        problems.add(path, "BUTTON_COMPONENT_CUSTOM_ID_URL_MUTUALLY_EXCLUSIVE", problem)


def _check_row(row: dict[str, Any], path: Path, problems: Problems) -> None:
    """Check that a row has buttons, or one other component, which takes its whole width."""
    components = row.get("components") or []
    if len(components) > 1 and any(each.get("type") != BUTTON for each in components):
        problem = "The specified component exceeds the maximum width"
        problems.add((*path, "components", 1), "COMPONENT_LAYOUT_WIDTH_EXCEEDED", problem)


def _check_select(select: dict[str, Any], path: Path, problems: Problems) -> None:
    seen = set()
    for index, option in enumerate(select.get("options") or ()):
        if option.get("value") in seen:
            problem = "The specified option value is already used"
            where = (*path, "options", index, "value")
            problems.add(where, "SELECT_COMPONENT_OPTION_VALUE_DUPLICATED", problem)
        seen.add(option.get("value"))


def _options(least: int, most: int) -> Field:
    option = Object(
        {
            "label": Field(Text(1, 100), required=True),
            "value": Field(Text(1, 100), required=True),
            "description": Text(0, 100),
            "emoji": Anything(),
            "default": Boolean(),
        }
    )
    return Field(ListOf(option, least, most), required=True)


def _select(**fields: Field | Kind) -> Object:
    return _component(
        _check_select,
        custom_id=_ID,
        placeholder=Text(0, 150),
        min_values=Integer(0, 25),
        max_values=Integer(1, 25),
        disabled=Boolean(),
        required=Boolean(),
        **fields,
    )


def _media(*schemes: str) -> Field:
    """Return a media item: a URL, or the name of a file that the message brings."""
    return Field(Object({"url": Field(Url(2048, schemes), required=True)}), required=True)


_MEDIA = _media("http", "https", "attachment")

_TABLES.update(
    {
        ACTION_ROW: _component(_check_row, components=_any_of(_IN_ROW, 5)),
        BUTTON: Object(
            {
                "id": Integer(0),
                "style": Field(OneOf((1, 2, 3, 4, 5, 6)), required=True),
                "label": Text(0, 80),
                "emoji": Anything(),
                "custom_id": Text(1, 100),
                "sku_id": Snowflake(),
                "url": Url(512, ("http", "https", "discord")),
                "disabled": Boolean(),
            },
            rule=_check_button,
        ),
        STRING_SELECT: _select(options=_options(1, 25)),
        TEXT_INPUT: _component(
            custom_id=_ID,
            style=Field(OneOf((1, 2)), required=True),
            label=Text(1, 45),
            min_length=Integer(0, 4000),
            max_length=Integer(1, 4000),
            required=Boolean(),
            value=Text(0, 4000),
            placeholder=Text(0, 100),
        ),
        USER_SELECT: _select(default_values=Anything()),
        ROLE_SELECT: _select(default_values=Anything()),
        MENTIONABLE_SELECT: _select(default_values=Anything()),
        CHANNEL_SELECT: _select(default_values=Anything(), channel_types=ListOf(Integer())),
        SECTION: _component(
            components=_any_of((TEXT_DISPLAY,), 3),
            accessory=Field(Variant(_TABLES, (BUTTON, THUMBNAIL)), required=True),
        ),
        TEXT_DISPLAY: _component(content=Field(Text(1, 4000), required=True)),
        THUMBNAIL: _component(media=_MEDIA, description=Text(0, 1024), spoiler=Boolean()),
        MEDIA_GALLERY: _component(
            items=Field(
                ListOf(
                    Object({"media": _MEDIA, "description": Text(0, 1024), "spoiler": Boolean()}),
                    1,
                    10,
                ),
                required=True,
            )
        ),
        FILE: _component(file=_media("attachment"), spoiler=Boolean()),
        SEPARATOR: _component(divider=Boolean(), spacing=OneOf((1, 2))),
        CONTAINER: _component(
            components=_any_of(_IN_CONTAINER),
            accent_color=Integer(0, 0xFFFFFF),
            spoiler=Boolean(),
        ),
        LABEL: _component(
            label=Field(Text(1, 45), required=True),
            description=Text(0, 100),
            component=Field(Variant(_TABLES, _IN_LABEL), required=True),
        ),
        FILE_UPLOAD: _component(
            custom_id=_ID,
            min_values=Integer(0, 10),
            max_values=Integer(1, 10),
            required=Boolean(),
            file_types=ListOf(Text(1), most=10),
        ),
        RADIO_GROUP: _component(custom_id=_ID, options=_options(2, 10), required=Boolean()),
        CHECKBOX_GROUP: _component(
            custom_id=_ID,
            options=_options(1, 10),
            min_values=Integer(0, 10),
            max_values=Integer(1, 10),
            required=Boolean(),
        ),
        CHECKBOX: _component(custom_id=_ID, default=Boolean()),
    }
)


def walk(components: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield components, each before the components nested in it.

    :param components: the components of a message or a modal.
    """
    for component in components:
        yield component
        nested = [*component.get("components", ())]
        nested += [component[key] for key in ("accessory", "component") if key in component]
        yield from walk(nested)


def number(components: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each component without an ``id`` the next free one, and return the components.

    :param components: the components of a message or a modal.
    """
    used = {component.get("id") for component in walk(components)}
    next_id = 1
    for component in walk(components):
        if not component.get("id"):
            while next_id in used:
                next_id += 1
            component["id"] = next_id
            used.add(next_id)
    return components


def check_layout(
    components: list[dict[str, Any]], path: Path, problems: Problems, *, version_2: bool
) -> None:
    """Check which components a message has, how many, and that no ``custom_id`` stands twice.

    :param components: the components of the message.
    :param path: the path of the components in the body.
    :param problems: the problems of the body.
    :param version_2: whether the message has the flag IS_COMPONENTS_V2.
    """
    if version_2 and sum(1 for _ in walk(components)) > _MAX_COMPONENTS:
        problem = f"Must be {_MAX_COMPONENTS} or fewer in length."
        problems.add(path, "BASE_TYPE_MAX_LENGTH", problem)
    if not version_2 and len(components) > _MAX_ROWS:
        problem = f"Must be between 1 and {_MAX_ROWS} in length."
        problems.add(path, "BASE_TYPE_BAD_LENGTH", problem)
    if sum(map(len, texts(components))) > _MAX_TEXT:
        problem = f"The total displayable text exceeds {_MAX_TEXT} characters"
        problems.add(path, "COMPONENT_DISPLAYABLE_TEXT_SIZE_EXCEEDED", problem)
    types = _IN_MESSAGE if version_2 else (ACTION_ROW,)
    for index, component in enumerate(components):
        _check_type(component, types, (*path, index), problems)
    for component in walk(components):
        if component.get("type") == TEXT_INPUT:
            _check_type(component, (BUTTON, *_SELECTS), path, problems)
    _check_custom_ids(components, path, problems)


def check_modal(modal: dict[str, Any], path: Path, problems: Problems) -> None:
    """Check that the rows of a modal have text inputs, and that no ``custom_id`` stands twice.

    :param modal: the modal.
    :param path: the path of the modal in the body.
    :param problems: the problems of the body.
    """
    components = modal.get("components") or []
    for index, component in enumerate(components):
        if component.get("type") == ACTION_ROW:
            for number, nested in enumerate(component.get("components") or ()):
                where = (*path, "components", index, "components", number)
                _check_type(nested, (TEXT_INPUT,), where, problems)
    _check_custom_ids(components, (*path, "components"), problems)


def texts(components: list[dict[str, Any]]) -> list[str]:
    """Return what the text displays of a message say.

    :param components: the components of the message.
    """
    displays = (each for each in walk(components) if each.get("type") == TEXT_DISPLAY)
    return [display["content"] for display in displays if "content" in display]


def _check_type(
    component: dict[str, Any], types: tuple[int, ...], path: Path, problems: Problems
) -> None:
    if component.get("type") not in types:
        problem = f'Value of field "type" must be one of {types}.'
        problems.add(path, "UNION_TYPE_CHOICES", problem)


def _check_custom_ids(components: list[dict[str, Any]], path: Path, problems: Problems) -> None:
    seen: set[str] = set()
    for component in walk(components):
        custom_id = component.get("custom_id")
        if custom_id is not None and custom_id in seen:
            problem = "Component custom id cannot be duplicated"
            problems.add(path, "COMPONENT_CUSTOM_ID_DUPLICATED", problem)
        seen.add(custom_id or "")
