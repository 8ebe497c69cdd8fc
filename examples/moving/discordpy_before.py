"""A bot of discord.py, which asks riddles. discordpy_after.py is the same bot.

DISCORD_TOKEN=... python examples/moving/discordpy_before.py
"""

import asyncio
import os

import discord
from discord.ext import tasks

intents = discord.Intents.default()
intents.message_content = True


class Bot(discord.Client):
    async def setup_hook(self) -> None:
        self.show_count.start()

    async def on_ready(self) -> None:
        print("logged in as", self.user.name, flush=True)

    @tasks.loop(minutes=1)
    async def show_count(self) -> None:
        text = f"in {len(self.guilds)} servers"
        await self.change_presence(activity=discord.CustomActivity(text))

    @show_count.before_loop
    async def wait_for_guilds(self) -> None:
        await self.wait_until_ready()

    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot or message.content != "!riddle":
            return
        await message.channel.send("What has keys, and opens no door?")

        def is_answer(other: discord.Message) -> bool:
            return (other.author, other.channel) == (message.author, message.channel)

        try:
            answer = await self.wait_for("message", check=is_answer, timeout=30)
        except asyncio.TimeoutError:
            await message.channel.send("A piano.")
        else:
            right = "piano" in answer.content.lower()
            await message.channel.send("Right!" if right else "No, a piano.")


bot = Bot(intents=intents)
bot.run(os.environ["DISCORD_TOKEN"])
