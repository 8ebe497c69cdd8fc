"""A bot of hikari that writes, run in a process of its own.  See discordpy_family.py."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import hikari

bot: Any = hikari.GatewayBot(
    os.environ["DISCORD_TOKEN"], rest_url=sys.argv[1], intents=hikari.Intents.ALL, banner=None
)
ADD, INTEGER = "add", hikari.OptionType.INTEGER


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


@bot.listen(hikari.StartedEvent)
async def on_started(event: Any) -> None:
    application = await bot.rest.fetch_application()
    command = bot.rest.slash_command_builder(ADD, "Adds.")
    for name in ("a", "b"):
        command.add_option(
            hikari.CommandOption(type=INTEGER, name=name, description="A number.", is_required=True)
        )
    await bot.rest.set_application_commands(application.id, [command])
    tell("ready")


@bot.listen(hikari.MessageCreateEvent)
async def on_message(event: Any) -> None:
    if event.content != "!all":
        return
    channel = event.channel_id
    async with bot.rest.trigger_typing(channel):
        sent = await bot.rest.create_message(channel, "one", embed=hikari.Embed(description="d"))
    await sent.edit("two")
    await sent.add_reaction("👍")
    await event.message.respond("reply", reply=event.message)
    uploaded = await bot.rest.create_message(channel, attachment=hikari.Bytes(b"bytes", "a.txt"))
    burst = [await bot.rest.create_message(channel, str(number)) for number in range(7)]
    await burst[0].delete()
    await bot.rest.delete_messages(channel, burst[1:])
    try:
        await bot.rest.create_message(channel, "x" * 2001)
    except hikari.BadRequestError as error:
        refused = [int(error.status), error.code]
    content = await uploaded.attachments[0].read()
    tell("written", content=content.decode(), refused=refused)


@bot.listen(hikari.InteractionCreateEvent)
async def on_interaction(event: Any) -> None:
    interaction = event.interaction
    total = sum(option.value for option in interaction.options)
    await interaction.create_initial_response(hikari.ResponseType.DEFERRED_MESSAGE_CREATE)
    await interaction.execute(str(total))
    more = await interaction.execute("more")
    await interaction.edit_message(more, "even more")
    await interaction.edit_initial_response(f"= {total}")


bot.run(check_for_updates=False)
