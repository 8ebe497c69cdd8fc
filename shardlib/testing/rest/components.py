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
    Snowflake,
    Text,
    Variant,
)

#: Component types that the gateway itself looks at.
ACTION_ROW = 1
BUTTON = 2

# Button styles that open a page and that sell something: neither sends an interaction.
_LINK, _PREMIUM = 5, 6

# The most components of a message with the flag IS_COMPONENTS_V2, nested ones counted as well, and
# the most action rows of any other message.
_MAX_COMPONENTS = 40
_MAX_ROWS = 5

# By component type. Filled below, because some tables refer to all of them.
_TABLES: dict[int, Object] = {}

#: Any component.
COMPONENT = Variant(_TABLES)

_ID = Field(Text(1, 100), required=True)


def _component(**fields: Field | Kind) -> Object:
    return Object({"id": Integer(0), **fields})


def _check_button(button: dict[str, Any], path: Path, problems: Problems) -> None:
    style = button.get("style")
    needed = {_LINK: "url", _PREMIUM: "sku_id"}.get(style, "custom_id") if style else None
    if needed is not None and button.get(needed) is None:
        problems.add((*path, needed), "BASE_TYPE_REQUIRED", "This field is required")


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
        custom_id=_ID,
        placeholder=Text(0, 150),
        min_values=Integer(0, 25),
        max_values=Integer(1, 25),
        disabled=Boolean(),
        required=Boolean(),
        **fields,
    )


_MEDIA = Field(Object({"url": Field(Text(1, 2048), required=True)}), required=True)

_TABLES.update(
    {
        ACTION_ROW: _component(components=Field(ListOf(COMPONENT, 1, 5), required=True)),
        BUTTON: Object(
            {
                "id": Integer(0),
                "style": Field(OneOf((1, 2, 3, 4, 5, 6)), required=True),
                "label": Text(0, 80),
                "emoji": Anything(),
                "custom_id": Text(1, 100),
                "sku_id": Snowflake(),
                "url": Text(1, 512),
                "disabled": Boolean(),
            },
            rule=_check_button,
        ),
        3: _select(options=_options(1, 25)),
        4: _component(
            custom_id=_ID,
            style=Field(OneOf((1, 2)), required=True),
            label=Text(1, 45),
            min_length=Integer(0, 4000),
            max_length=Integer(1, 4000),
            required=Boolean(),
            value=Text(0, 4000),
            placeholder=Text(0, 100),
        ),
        5: _select(default_values=Anything()),
        6: _select(default_values=Anything()),
        7: _select(default_values=Anything()),
        8: _select(default_values=Anything(), channel_types=ListOf(Integer())),
        9: _component(
            components=Field(ListOf(COMPONENT, 1, 3), required=True),
            accessory=Field(COMPONENT, required=True),
        ),
        10: _component(content=Field(Text(1, 4000), required=True)),
        11: _component(media=_MEDIA, description=Text(0, 1024), spoiler=Boolean()),
        12: _component(
            items=Field(
                ListOf(
                    Object({"media": _MEDIA, "description": Text(0, 1024), "spoiler": Boolean()}),
                    1,
                    10,
                ),
                required=True,
            )
        ),
        13: _component(file=_MEDIA, spoiler=Boolean()),
        14: _component(divider=Boolean(), spacing=OneOf((1, 2))),
        17: _component(
            components=Field(ListOf(COMPONENT, 1), required=True),
            accent_color=Integer(0, 0xFFFFFF),
            spoiler=Boolean(),
        ),
        18: _component(
            label=Field(Text(1, 45), required=True),
            description=Text(0, 100),
            component=Field(COMPONENT, required=True),
        ),
        19: _component(
            custom_id=_ID,
            min_values=Integer(0, 10),
            max_values=Integer(1, 10),
            required=Boolean(),
            file_types=ListOf(Text(1), most=10),
        ),
        21: _component(custom_id=_ID, options=_options(2, 10), required=Boolean()),
        22: _component(
            custom_id=_ID,
            options=_options(1, 10),
            min_values=Integer(0, 10),
            max_values=Integer(1, 10),
            required=Boolean(),
        ),
        23: _component(custom_id=_ID, default=Boolean()),
    }
)


def walk(components: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield components, and those nested in them.

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
    """Check how many components a message has, and that no ``custom_id`` stands twice.

    :param components: the components of the message.
    :param path: the path of the components in the body.
    :param problems: the problems of the body.
    :param version_2: whether the message has the flag IS_COMPONENTS_V2.
    """
    if version_2 and sum(1 for _ in walk(components)) > _MAX_COMPONENTS:
        problem = f"Must be {_MAX_COMPONENTS} or fewer in length."
        problems.add(path, "BASE_TYPE_MAX_LENGTH", problem)
    if not version_2:
        if len(components) > _MAX_ROWS:
            problem = f"Must be between 1 and {_MAX_ROWS} in length."
            problems.add(path, "BASE_TYPE_BAD_LENGTH", problem)
        for index, component in enumerate(components):
            if component.get("type") != ACTION_ROW:
                problem = f'Value of field "type" must be one of ({ACTION_ROW},).'
                problems.add((*path, index), "UNION_TYPE_CHOICES", problem)
    seen: set[str] = set()
    for component in walk(components):
        custom_id = component.get("custom_id")
        if custom_id is not None and custom_id in seen:
            problem = "Component custom id cannot be duplicated"
            problems.add(path, "COMPONENT_CUSTOM_ID_DUPLICATED", problem)
        seen.add(custom_id or "")
