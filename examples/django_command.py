"""A Django management command that runs a bot, and stores messages. All in one file.

    pip install django
    DISCORD_TOKEN=... python examples/django_command.py runbot

Ctrl-C and SIGTERM end it. In a project, the model stands in an app's ``models.py``, the
command in ``management/commands/runbot.py``, and ``manage.py runbot`` runs it, beside the
server.
"""

import os
import signal
import sys

import django
from django.conf import settings
from django.core.management import BaseCommand
from django.db import close_old_connections, connection, models

from shardlib import Intents, Shard

NAME = os.environ.get("DATABASE", "messages.sqlite3")
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": NAME}}
)
django.setup()


class Message(models.Model):
    id = models.BigIntegerField(primary_key=True)
    author = models.CharField(max_length=32)
    content = models.TextField()

    class Meta:
        app_label = "bot"


class Command(BaseCommand):
    help = "Run the bot until Ctrl-C or SIGTERM."

    def remember(self, shard: Shard, data: dict) -> None:
        # As Django does it for a request: the database may have closed the connection.
        close_old_connections()
        author, content = data["author"]["username"], data["content"]
        Message(id=int(data["id"]), author=author, content=content).save()
        self.stdout.write(f"{author} wrote: {content}")

    def handle(self, **options: object) -> None:
        bot = Shard(os.environ["DISCORD_TOKEN"], Intents.GUILDS | Intents.GUILD_MESSAGES)
        bot.on("MESSAGE_CREATE", self.remember)
        signal.signal(signal.SIGTERM, lambda number, frame: bot.disconnect())
        bot.run_forever(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))


if "bot_message" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:  # in a project: manage.py migrate
        editor.create_model(Message)

Command().run_from_argv(sys.argv)
