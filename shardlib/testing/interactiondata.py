"""The interaction data of what a user does: invoking a command, using a component, sending a modal.

What a user could not do at Discord is a ValueError that says why.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from shardlib.testing.channel import Message
from shardlib.testing.resolved import Resolved
from shardlib.testing.rest.commandforms import (
    BOOLEAN,
    CHANNEL,
    CHAT_INPUT,
    INTEGER,
    MENTIONABLE,
    MESSAGE,
    NUMBER,
    ROLE,
    STRING,
    SUB_COMMAND,
    SUB_COMMAND_GROUP,
    USER_OPTION,
)
from shardlib.testing.rest.components import (
    BUTTON,
    CHANNEL_SELECT,
    CHECKBOX,
    LABEL,
    MENTIONABLE_SELECT,
    ROLE_SELECT,
    TEXT_INPUT,
    USER_SELECT,
    walk,
)
from shardlib.testing.validation import is_int

# What the value of an option must be, in words and as Python types, by option type. Other values
# are ids.
_VALUES: dict[int, tuple[str, tuple[type, ...]]] = {
    STRING: ("a str", (str,)),
    INTEGER: ("a whole number", (int,)),
    BOOLEAN: ("true or false", (bool,)),
    NUMBER: ("a number", (int, float)),
}

# The component types whose values are ids, and the option type that resolves each.
_ID_SELECTS = {
    USER_SELECT: USER_OPTION,
    ROLE_SELECT: ROLE,
    MENTIONABLE_SELECT: MENTIONABLE,
    CHANNEL_SELECT: CHANNEL,
}


def command_data(
    command: dict[str, Any],
    options: Mapping[str, Any],
    resolved: Resolved,
    *,
    target_id: str | None = None,
    focused: str | None = None,
) -> dict[str, Any]:
    """Return the data of an invoked command.

    :param command: the registered command.
    :param options: the value of each option by its name; the options of a subcommand are a dict.
    :param resolved: collects the objects of users, channels and roles.
    :param target_id: the user or the message for a command of a context menu.
    :param focused: the name of the option that the user is typing, for autocompletion.
    :raises ValueError: if the command has no such option, lacks a required one or cannot take a
        value.
    """
    data: dict[str, Any] = {"id": command["id"], "name": command["name"], "type": command["type"]}
    if "guild_id" in command:
        data["guild_id"] = command["guild_id"]
    if command["type"] == CHAT_INPUT:
        given = _options(f"/{command['name']}", command, options, resolved, focused)
        if focused is not None and not _has_focus(given):
            raise ValueError(f"the options have no {focused!r}, which the user is typing")
        if given:
            data["options"] = given
    elif target_id is None:
        kind = "message" if command["type"] == MESSAGE else "user"
        raise ValueError(f"{command['name']!r} needs target_id, the id of a {kind}")
    else:
        data["target_id"] = target_id
        resolved.add_target(command["type"], target_id)
    return resolved.add_to(data)


def _options(
    name: str,
    command: dict[str, Any],
    values: Mapping[str, Any],
    resolved: Resolved,
    focused: str | None,
) -> list[dict[str, Any]]:
    known = {option["name"]: option for option in command.get("options") or ()}
    for given in values:
        if given not in known:
            hint = ", ".join(difflib.get_close_matches(given, known) or known) or "none"
            raise ValueError(f"{name} has no option {given!r}; it has {hint}")
    is_parent = any(each["type"] in (SUB_COMMAND, SUB_COMMAND_GROUP) for each in known.values())
    if is_parent and len(values) != 1:
        raise ValueError(f"{name} takes one subcommand, as a dict: {', '.join(known)}")
    found = []
    for option in known.values():
        given_name = option["name"]
        if given_name in values:
            found.append(_option(name, option, values[given_name], resolved, focused))
        elif option.get("required") and focused is None:
            raise ValueError(f"{name} needs the option {given_name!r}")
    return found


def _has_focus(options: list[dict[str, Any]]) -> bool:
    return any(each.get("focused") or _has_focus(each.get("options", [])) for each in options)


def _option(
    name: str, option: dict[str, Any], value: Any, resolved: Resolved, focused: str | None
) -> dict[str, Any]:
    kind = option["type"]
    given: dict[str, Any] = {"name": option["name"], "type": kind}
    if kind in (SUB_COMMAND, SUB_COMMAND_GROUP):
        nested = _options(f"{name} {option['name']}", option, value or {}, resolved, focused)
        return {**given, "options": nested}
    if option["name"] == focused:
        # What a user has typed so far need not be a number, nor one of the choices.
        return {**given, "value": value, "focused": True}
    what = f"the option {option['name']!r} of {name}"
    if kind not in _VALUES:
        value = str(value)
        resolved.add(kind, value, what)
    else:
        expected, types = _VALUES[kind]
        if not isinstance(value, types) or (kind in (INTEGER, NUMBER) and isinstance(value, bool)):
            raise ValueError(f"{what} must be {expected}, not {value!r}")
    choices = [choice["value"] for choice in option.get("choices") or ()]
    if choices and value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    _check_range(what, option, value)
    return {**given, "value": value}


def _check_range(what: str, option: dict[str, Any], value: Any) -> None:
    measured = len(value) if isinstance(value, str) else value
    suffix = "length" if isinstance(value, str) else "value"
    least, most = f"min_{suffix}", f"max_{suffix}"
    if option.get(least) is not None and measured < option[least]:
        raise ValueError(f"{what}: {value!r} is below {least}, {option[least]}")
    if option.get(most) is not None and measured > option[most]:
        raise ValueError(f"{what}: {value!r} is above {most}, {option[most]}")


def component_data(
    message: Message, custom_id: str, values: Iterable[str] | None, resolved: Resolved
) -> dict[str, Any]:
    """Return the data of a component that a user uses.

    :param message: the message that has the component.
    :param custom_id: the component's ``custom_id``.
    :param values: what the user selects, one text for one value; None for a button.
    :param resolved: collects the objects of users, channels and roles.
    :raises ValueError: if the message has no such component, if it is disabled, or if it cannot
        take the values.
    """
    component = _find(message["components"], custom_id, f"message {message['id']}")
    kind = component["type"]
    if component.get("disabled"):
        raise ValueError(f"the component {custom_id!r} is disabled")
    data: dict[str, Any] = {"custom_id": custom_id, "component_type": kind}
    if component.get("id"):
        data["id"] = component["id"]
    if kind == BUTTON:
        if values is not None:
            raise ValueError(f"{custom_id!r} is a button, which has no values")
        return data
    selected = _selected(component, values, resolved)
    return resolved.add_to({**data, "values": selected})


def modal_data(
    modal: dict[str, Any], values: Mapping[str, Any], resolved: Resolved
) -> dict[str, Any]:
    """Return the data of a modal that a user sends.

    :param modal: the data of the callback that opened the modal.
    :param values: by ``custom_id``, the text of a text input, whether a checkbox is checked, or
        what is selected, one text or a list. A component that is left out keeps the value that the
        bot gave.
    :param resolved: collects the objects of users, channels and roles.
    :raises ValueError: if the modal has no such component, or if one cannot take its value.
    """
    known = {each["custom_id"] for each in walk(modal["components"]) if "custom_id" in each}
    for custom_id in values:
        if custom_id not in known:
            raise ValueError(f"the modal has no {custom_id!r}; it has {', '.join(sorted(known))}")
    components = [_submit(each, values, resolved) for each in modal["components"]]
    return resolved.add_to({"custom_id": modal["custom_id"], "components": components})


def _submit(
    component: dict[str, Any], values: Mapping[str, Any], resolved: Resolved
) -> dict[str, Any]:
    kind = component["type"]
    sent: dict[str, Any] = {"type": kind, "id": component["id"]}
    if kind == LABEL:
        return {**sent, "component": _submit(component["component"], values, resolved)}
    if "components" in component:
        return {
            **sent,
            "components": [_submit(e, values, resolved) for e in component["components"]],
        }
    if "custom_id" not in component:
        return sent
    custom_id = component["custom_id"]
    sent["custom_id"] = custom_id
    if kind == TEXT_INPUT:
        text = values.get(custom_id, component.get("value") or "")
        is_required = component.get("required", True)
        least = component.get("min_length") or (1 if is_required else 0)
        what = f"the text of {custom_id!r}"
        if not isinstance(text, str):
            raise ValueError(f"{what} cannot be {text!r}")
        if text or is_required:
            bounds = {"min_length": least, "max_length": component.get("max_length")}
            _check_range(what, bounds, text)
        return {**sent, "value": text}
    if kind == CHECKBOX:
        return {**sent, "value": bool(values.get(custom_id, component.get("default")))}
    given = values.get(custom_id)
    if given is None and component.get("required") is False:
        return {**sent, "values": []}
    return {**sent, "values": _selected(component, given, resolved)}


def _find(components: list[dict[str, Any]], custom_id: str, where: str) -> dict[str, Any]:
    known = []
    for component in walk(components):
        if component.get("custom_id") == custom_id:
            return component
        known.append(component.get("custom_id"))
    names = ", ".join(repr(each) for each in known if each) or "none"
    raise ValueError(f"{where} has no component {custom_id!r}; it has {names}")


def _selected(
    component: dict[str, Any], values: Iterable[str] | str | None, resolved: Resolved
) -> list[str]:
    """Return what a user selects, after a check of the number and of the options."""
    custom_id = component["custom_id"]
    options = component.get("options")
    if values is None:
        selected = [each["value"] for each in options or () if each.get("default")]
    else:
        selected = [values] if isinstance(values, str) else [str(value) for value in values]
    least = component["min_values"] if is_int(component.get("min_values")) else 1
    most = component.get("max_values") or 1
    if not least <= len(selected) <= most:
        raise ValueError(f"{custom_id!r} takes {least} to {most} values, not {len(selected)}")
    known = [option["value"] for option in options or ()]
    kind = _ID_SELECTS.get(component["type"])
    for value in selected:
        if options is not None and value not in known:
            raise ValueError(f"{custom_id!r} has no value {value!r}; it has {', '.join(known)}")
        if kind is not None:
            resolved.add(kind, value, f"the component {custom_id!r}")
    return selected
