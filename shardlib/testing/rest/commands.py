"""Application commands: registering, reading, changing and deleting them."""

from __future__ import annotations

from typing import Any

from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.commandforms import CREATE_COMMAND, EDIT_COMMAND, OVERWRITE_COMMANDS
from shardlib.testing.rest.forms import Boolean
from shardlib.testing.rest.ratelimits import RateLimit
from shardlib.testing.rest.registry import CommandRegistry
from shardlib.testing.rest.response import Response, json_response
from shardlib.testing.rest.router import Call, Route

_READ_LIMIT = RateLimit("commands read", 20, 10.0)
_WRITE_LIMIT = RateLimit("commands written", 5, 20.0)
_OVERWRITE_LIMIT = RateLimit("commands overwritten", 5, 20.0)

_LOCALIZATIONS = ("name_localizations", "description_localizations")


class ApplicationCommands:
    """The resource Application Command, global and of guilds.

    :param backend: the parts of the gateway.
    :param registry: keeps the commands.
    """

    def __init__(self, backend: Backend, registry: CommandRegistry) -> None:
        self._backend = backend
        self._registry = registry

    def routes(self) -> list[Route]:
        """Return the routes."""
        application = "/applications/{application_id}"
        routes = [
            Route("GET", f"{application}/emojis", lambda call: {"items": []}, _READ_LIMIT),
            Route(
                "GET",
                f"{application}/guilds/{{guild_id}}/commands/permissions",
                lambda call: [],
                _READ_LIMIT,
            ),
        ]
        for scope in (application, f"{application}/guilds/{{guild_id}}"):
            commands = f"{scope}/commands"
            command = f"{commands}/{{command_id}}"
            routes += [
                Route("GET", commands, self._list, _READ_LIMIT),
                Route("POST", commands, self._create, _WRITE_LIMIT),
                Route("PUT", commands, self._overwrite, _OVERWRITE_LIMIT),
                Route("GET", command, self._get, _READ_LIMIT),
                Route("PATCH", command, self._edit, _WRITE_LIMIT),
                Route("DELETE", command, self._delete, _WRITE_LIMIT),
            ]
        return routes

    def _scope(self, call: Call) -> str | None:
        self._backend.check_application(call["application_id"])
        guild_id = call.parameters.get("guild_id")
        if guild_id is not None:
            self._backend.guild(guild_id)
        return guild_id

    def _list(self, call: Call) -> list[dict[str, Any]]:
        commands = self._registry.all(self._scope(call))
        if call.query(with_localizations=Boolean()).get("with_localizations"):
            return commands
        return [
            {key: value for key, value in command.items() if key not in _LOCALIZATIONS}
            for command in commands
        ]

    def _get(self, call: Call) -> dict[str, Any]:
        return self._registry.get(self._scope(call), call["command_id"])

    def _create(self, call: Call) -> Response:
        command, is_new = self._registry.put(self._scope(call), call.body(CREATE_COMMAND))
        return json_response(201 if is_new else 200, command)

    def _edit(self, call: Call) -> dict[str, Any]:
        scope = self._scope(call)
        return self._registry.edit(scope, call["command_id"], call.body(EDIT_COMMAND))

    def _overwrite(self, call: Call) -> list[dict[str, Any]]:
        return self._registry.overwrite(self._scope(call), call.body(OVERWRITE_COMMANDS))

    def _delete(self, call: Call) -> None:
        self._registry.delete(self._scope(call), call["command_id"])
