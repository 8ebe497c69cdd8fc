"""A bot of discord.py that writes, run in a process of its own.  See discordpy_family.py."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

import discord
from discord import app_commands, gateway, http
from yarl import URL

api_url, gateway_url = sys.argv[1:]

# The only change: where Discord is.
http.Route.BASE = api_url
gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway_url)


def tell(event: str, **details: Any) -> None:
    print(json.dumps({"event": event, **details}), flush=True)


class Form(discord.ui.Modal):
    title = "Form"
    name: discord.ui.TextInput[Form] = discord.ui.TextInput(label="Name", custom_id="name")

    async def on_submit(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_message(f"Hello {self.name.value}")


class Buttons(discord.ui.View):
    @discord.ui.button(label="Go", custom_id="go")
    async def go(self, interaction: discord.Interaction, button: Any) -> None:
        await interaction.response.edit_message(content="pressed", view=None)


class Bot(discord.Client):
    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.all())
        self.tree = app_commands.CommandTree(self)

    async def setup_hook(self) -> None:
        await self.tree.sync()

    async def on_ready(self) -> None:
        tell("ready")

    async def on_message(self, message: discord.Message) -> None:
        if message.author == self.user or message.content != "!all":
            return
        async with message.channel.typing():
            sent = await message.channel.send("one", embed=discord.Embed(description="d"))
        await sent.edit(content="two")
        await sent.add_reaction("👍")
        await message.reply("reply", mention_author=False)
        file = discord.File(io.BytesIO(b"bytes"), "a.txt", description="file")
        uploaded = await message.channel.send(file=file)
        burst = [await message.channel.send(str(number)) for number in range(7)]
        await burst[0].delete()
        await message.channel.delete_messages(burst[1:])
        try:
            await message.channel.send("x" * 2001)
        except discord.HTTPException as error:
            refused = [error.status, error.code]
        content = await uploaded.attachments[0].read()
        tell("written", content=content.decode(), refused=refused)
        history = [each.content async for each in message.channel.history(limit=2)]
        await sent.pin()
        pins = [each.id async for each in message.channel.pins()]
        await message.author.send("in private")
        tell("more", history=history, pins=len(pins))


bot = Bot()


@bot.tree.command(description="Adds.")
async def add(interaction: discord.Interaction, a: int, b: int) -> None:
    await interaction.response.defer()
    await interaction.followup.send(f"{a + b}")
    more = await interaction.followup.send("more", wait=True)
    await more.edit(content="even more")
    await interaction.edit_original_response(content=f"= {a + b}")


@bot.tree.command(description="Asks.")
async def ask(interaction: discord.Interaction) -> None:
    await interaction.response.send_modal(Form())


@bot.tree.command(description="Shows buttons.")
async def buttons(interaction: discord.Interaction, who: discord.Member) -> None:
    await interaction.response.send_message(f"{who.id}", view=Buttons())
    tell("shown")


@bot.tree.command(description="Only you see it.")
async def secret(interaction: discord.Interaction) -> None:
    await interaction.response.send_message("psst", ephemeral=True)
    await interaction.delete_original_response()


bot.run(os.environ["DISCORD_TOKEN"])
