"""A bot of disco 0.0.12 with a plugin of ours, run in a process of its own by Python 2.7.

usage: disco_bot.py API_URL   (the token in DISCORD_TOKEN)
"""

import os
import sys

from gevent import monkey

monkey.patch_all()

import disco_before  # noqa: E402
from disco.api.http import HTTPClient  # noqa: E402
from disco.bot import Bot, BotConfig  # noqa: E402
from disco.client import Client, ClientConfig  # noqa: E402

HTTPClient.BASE_URL = sys.argv[1]  # the only change: where Discord is
config = ClientConfig()
config.token = os.environ["DISCORD_TOKEN"]
bot = Bot(Client(config), BotConfig())
bot.add_plugin(disco_before.Greeter)
bot.run_forever()
