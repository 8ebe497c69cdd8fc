"""The application commands that a bot has registered, globally or in a guild."""

from __future__ import annotations

from collections import Counter
from typing import Any

from shardlib.testing.clock import Clock
from shardlib.testing.rest.commandforms import CHAT_INPUT, MAX_COMMANDS
from shardlib.testing.rest.errors import (
    TOO_MANY_COMMANDS,
    TOO_MANY_COMMANDS_CREATED,
    UNKNOWN_COMMAND,
    ApiError,
    invalid_form,
)
from shardlib.testing.world import World

# How many commands a bot may create in each scope in 24 hours.
_CREATES_A_DAY = 200
_DAY = 24 * 3600.0

_GLOBAL_DEFAULTS: dict[str, Any] = {
    "dm_permission": True,
    "contexts": None,
    "integration_types": [0],
}


class CommandRegistry:
    """Keeps commands by scope: None is the global one, and a guild's id is that guild's.

    The callers hold the gateway's lock.

    :param world: the bot's application.
    :param clock: the gateway's clock.
    """

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        # By scope and id.
        self._commands: dict[str | None, dict[str, dict[str, Any]]] = {}
        # By scope, the times of the creations in the last 24 hours.
        self._created_at: dict[str | None, list[float]] = {}

    def all(self, scope: str | None) -> list[dict[str, Any]]:
        """Return the commands of a scope.

        :param scope: a guild's id; None for the global commands.
        """
        return list(self._commands.get(scope, {}).values())

    def get(self, scope: str | None, command_id: str) -> dict[str, Any]:
        """Return a command.

        :param scope: a guild's id; None for the global commands.
        :param command_id: the command's id.
        :raises ApiError: if the scope has no such command.
        """
        command = self._commands.get(scope, {}).get(command_id)
        if command is None:
            raise ApiError(UNKNOWN_COMMAND)
        return command

    def find(self, scope: str | None, name: str, kind: int) -> dict[str, Any] | None:
        """Return the command of a name and type; None if the scope has none.

        :param scope: a guild's id; None for the global commands.
        :param name: the command's name.
        :param kind: the command type.
        """
        for command in self.all(scope):
            if (command["name"], command["type"]) == (name, kind):
                return command
        return None

    def put(self, scope: str | None, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Create a command, or overwrite the one of the same name and type.

        :param scope: a guild's id; None for the global commands.
        :param body: the checked body.
        :returns: the command, and whether it is new.
        :raises ApiError: if there are too many commands, or too many were created.
        """
        kind = body.get("type") or CHAT_INPUT
        former = self.find(scope, body["name"], kind)
        if former is None:
            same_type = [each for each in self.all(scope) if each["type"] == kind]
            if len(same_type) >= MAX_COMMANDS[kind]:
                raise ApiError(TOO_MANY_COMMANDS)
            self._count_creations(scope, 1)
        command = self._build(scope, body, self._world.new_id() if former is None else former["id"])
        self._commands.setdefault(scope, {})[command["id"]] = command
        return command, former is None

    def edit(self, scope: str | None, command_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change the given fields of a command, and return the command.

        :param scope: a guild's id; None for the global commands.
        :param command_id: the command's id.
        :param body: the checked body.
        :raises ApiError: if the scope has no such command, or another one of the new name.
        """
        former = self.get(scope, command_id)
        other = self.find(scope, body.get("name") or former["name"], former["type"])
        if other is not None and other is not former:
            raise _duplicate("name")
        command = self._build(scope, {**former, **body}, command_id)
        self._commands[scope][command_id] = command
        return command

    def delete(self, scope: str | None, command_id: str) -> None:
        """Delete a command.

        :param scope: a guild's id; None for the global commands.
        :param command_id: the command's id.
        :raises ApiError: if the scope has no such command.
        """
        self.get(scope, command_id)
        del self._commands[scope][command_id]

    def overwrite(self, scope: str | None, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Replace all commands of a scope, and return the new ones.

        A command of the same name and type keeps its id.

        :param scope: a guild's id; None for the global commands.
        :param bodies: the checked bodies.
        :raises ApiError: if a name stands twice, if there are too many commands, or if too many
            were created.
        """
        seen = set()
        for index, body in enumerate(bodies):
            key = body["name"], body.get("type") or CHAT_INPUT
            if key in seen:
                raise _duplicate(index, "name")
            seen.add(key)
        for kind, amount in Counter(kind for _, kind in seen).items():
            if amount > MAX_COMMANDS[kind]:
                raise ApiError(TOO_MANY_COMMANDS)
        former = {(each["name"], each["type"]): each["id"] for each in self.all(scope)}
        self._count_creations(scope, len(seen - set(former)))
        commands = [
            self._build(
                scope,
                body,
                former.get((body["name"], body.get("type") or CHAT_INPUT)) or self._world.new_id(),
            )
            for body in bodies
        ]
        self._commands[scope] = {command["id"]: command for command in commands}
        return commands

    def _build(self, scope: str | None, body: dict[str, Any], command_id: str) -> dict[str, Any]:
        given = {key: value for key, value in body.items() if value is not None}
        command: dict[str, Any] = {
            "default_member_permissions": None,
            "type": CHAT_INPUT,
            "description": "",
            "name_localizations": None,
            "description_localizations": None,
            "nsfw": False,
            **(_GLOBAL_DEFAULTS if scope is None else {}),
            **given,
            "id": command_id,
            "application_id": self._world.application["id"],
            "version": self._world.new_id(),
        }
        if scope is not None:
            command["guild_id"] = scope
        return command

    def _count_creations(self, scope: str | None, number: int) -> None:
        now = self._clock()
        recent = [at for at in self._created_at.get(scope, ()) if now - at < _DAY]
        if number and len(recent) + number > _CREATES_A_DAY:
            left = round(_DAY - (now - recent[0]), 3) if recent else _DAY
            raise ApiError(TOO_MANY_COMMANDS_CREATED, {"retry_after": left, "global": False})
        self._created_at[scope] = recent + [now] * number


def _duplicate(*path: str | int) -> ApiError:
    return invalid_form(
        "APPLICATION_COMMANDS_DUPLICATE_NAME", "Application command names must be unique", *path
    )
