"""The bot of questions.py, with a window. DISCORD_TOKEN=... python window.py"""

import os
import signal
import tkinter

from questions import GATEWAY, make_bot

root = tkinter.Tk()
root.title("Questions")
text = tkinter.Text(root, width=72, height=20)
text.pack(fill="both", expand=True)

bot = make_bot(os.environ["DISCORD_TOKEN"])
messages = bot.events("MESSAGE_CREATE")


def show() -> None:
    for event in messages.poll():
        text.insert(
            "end", f"{event.data['author']['username']}: {event.data['content']}\n"
        )
        text.see("end")
    root.after(50, show)


# Ctrl-C ends the main loop, as closing the window does, at the next call of show().
signal.signal(signal.SIGINT, lambda number, frame: root.after_idle(root.quit))
bot.start(GATEWAY)
show()
root.mainloop()
bot.disconnect()
