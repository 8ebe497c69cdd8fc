"""A window that shows messages as they come: a shard beside tkinter.

    DISCORD_TOKEN=... python examples/tkinter_app.py

tkinter is to be used by one thread only. So the callbacks, on the shard's thread, put what they
have into a queue, and the window looks into it ten times a second.
"""

import os
import queue
import signal
import tkinter as tk

from shardlib import Intents, Shard

events: queue.SimpleQueue[str] = queue.SimpleQueue()

bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES,
    on_socket_ready=lambda shard: events.put("-- connected --"),
    on_socket_disconnected=lambda shard, code, closed_by_self: events.put("-- disconnected --"),
    on_socket_closed=lambda shard, error: events.put(f"-- closed: {error} --"),
)


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    events.put(f"{data['author']['username']}: {data['content']}")


def show_events() -> None:
    while not events.empty():
        text.insert("end", events.get() + "\n")
        text.see("end")
    root.after(100, show_events)


root = tk.Tk()
root.title("Messages")
text = tk.Text(root, width=80, height=24)
text.pack(fill="both", expand=True)
signal.signal(signal.SIGINT, lambda *_: root.quit())  # Ctrl-C in the terminal

with bot:  # however the window is closed, the shard is, too
    bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
    show_events()
    root.mainloop()
