"""What commands take from the environment."""

from __future__ import annotations

import os

from shardlib.cli.errors import UsageError


def bot_token(otherwise: str = "") -> str:
    """Return the bot's token, from the variable DISCORD_TOKEN.

    :param otherwise: which arguments need no token, for the message.
    :raises UsageError: if the variable is not set.
    """
    token = os.environ.get("DISCORD_TOKEN")
    if not token:
        raise UsageError(
            "the bot's token is taken from the environment variable DISCORD_TOKEN, which is not "
            f"set{otherwise and '; ' + otherwise}"
        )
    return token
