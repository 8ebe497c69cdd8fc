"""A plugin of disco 0.0.12, for Python 2.7. disco_after.py is the same bot.

python -m disco.cli --token=... --run-bot --plugin disco_before
"""

from disco.bot import Plugin


class Greeter(Plugin):
    @Plugin.listen("MessageCreate")
    def on_message_create(self, event):
        self.log.info("%s wrote: %s", event.author.username, event.content)

    @Plugin.command("hello", "<name:str>")
    def on_hello(self, event, name):
        event.msg.reply("Hello, " + name + "!")
