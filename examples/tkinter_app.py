"""A window that shows messages as they come: a shard beside tkinter.

    DISCORD_TOKEN=... python examples/tkinter_app.py

The main loop of tkinter calls the callbacks, so they use widgets as every function of a
window does. Closing the window disconnects the shard. The content of messages needs the
Message Content Intent, which the Developer Portal switches on.
"""

import os
import signal
import tkinter
import types
from tkinter import ttk

from shardlib import Intents, Shard
from shardlib.dispatch import tk

root = tkinter.Tk()
root.title("Messages")
root.geometry("640x300")
if root.tk.call("tk", "windowingsystem") == "x11":
    ttk.Style().theme_use("clam")  # less grey than the default on Linux

status = ttk.Label(root, text="connecting ...", padding=8, wraplength=620)
status.pack(side="bottom", fill="x")
messages = ttk.Treeview(root, columns=("author", "content"), show="headings")
messages.heading("author", text="Author", anchor="w")
messages.heading("content", text="Message", anchor="w")
messages.column("author", width=160, stretch=False)
messages.pack(fill="both", expand=True)

bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT,
    dispatcher=tk(root),
    on_socket_disconnected=lambda *_: status.configure(
        text="connection lost, trying again ..."
    ),
    on_socket_reconnected=lambda *_: status.configure(text="connected again"),
    on_socket_closed=lambda shard, error: status.configure(text=str(error)),
)


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    status["text"] = f"connected as {data['user']['username']}"


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    row = messages.insert("", "end", values=(data["author"]["username"], data["content"]))
    messages.see(row)


def listen_for_ctrl_c() -> None:
    # tkinter notices Ctrl-C when it has something to do.
    root.after(200, listen_for_ctrl_c)


def end(number: int, frame: types.FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C ends the program at once
    root.destroy()


signal.signal(signal.SIGINT, end)
listen_for_ctrl_c()
bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
root.mainloop()
