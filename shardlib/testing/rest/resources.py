"""All resources of the API, made and joined."""

from __future__ import annotations

from shardlib.testing.interactions import Interactions
from shardlib.testing.rest.api import Api
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.channels import Channels
from shardlib.testing.rest.commands import ApplicationCommands
from shardlib.testing.rest.files import Files
from shardlib.testing.rest.guilds import Guilds
from shardlib.testing.rest.interactions import InteractionResponses
from shardlib.testing.rest.log import RequestLog
from shardlib.testing.rest.login import Login
from shardlib.testing.rest.messages import Messages
from shardlib.testing.rest.messagewriter import MessageWriter
from shardlib.testing.rest.reactions import Reactions
from shardlib.testing.rest.registry import CommandRegistry
from shardlib.testing.rest.users import Users


def make_api(
    backend: Backend, registry: CommandRegistry, interactions: Interactions, log: RequestLog
) -> Api:
    """Return the API with all its routes.

    :param backend: the parts of the gateway that the API reads and changes.
    :param registry: keeps the application commands.
    :param interactions: the interactions that bots answer.
    :param log: remembers the requests that have no route.
    """
    files = Files()
    writer = MessageWriter(backend, files)
    resources = (
        Login(backend),
        Users(backend),
        Guilds(backend),
        Channels(backend),
        Messages(backend, writer),
        Reactions(backend),
        ApplicationCommands(backend, registry),
        InteractionResponses(backend, interactions, writer),
        files,
    )
    return Api(backend, [route for each in resources for route in each.routes()], log)
