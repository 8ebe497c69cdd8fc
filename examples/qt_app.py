"""A window that shows messages as they come: a shard beside Qt.

    pip install PySide6
    DISCORD_TOKEN=... python examples/qt_app.py

The event loop of Qt calls the callbacks, so they use widgets as every slot does. The end
of the application disconnects the shard. The content of messages needs the Message
Content Intent, which the Developer Portal switches on. For PyQt6 write PyQt6 instead of
PySide6.
"""

import os
import signal
import sys

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import (
    QApplication,
    QLabel,
    QMainWindow,
    QTreeWidget,
    QTreeWidgetItem,
)

from shardlib import Intents, Shard
from shardlib.dispatch import qt

application = QApplication(sys.argv)
# By a timer: quit() itself does nothing before exec() has begun.
signal.signal(signal.SIGINT, lambda *_: QTimer.singleShot(0, application.quit))

messages = QTreeWidget()
messages.setHeaderLabels(["Author", "Message"])
messages.setColumnWidth(0, 160)
messages.setRootIsDecorated(False)
messages.setAlternatingRowColors(True)
messages.setStyleSheet("QTreeWidget::item { padding: 3px }")
window = QMainWindow()
window.setWindowTitle("Messages")
window.setCentralWidget(messages)
status = QLabel("connecting ...")
status.setWordWrap(True)
window.statusBar().addWidget(status, 1)
window.resize(640, 300)
window.show()

bot = Shard(
    os.environ["DISCORD_TOKEN"],
    Intents.GUILDS | Intents.GUILD_MESSAGES | Intents.MESSAGE_CONTENT,
    dispatcher=qt(application),
    on_socket_disconnected=lambda *_: status.setText("connection lost, trying again ..."),
    on_socket_reconnected=lambda *_: status.setText("connected again"),
    on_socket_closed=lambda shard, error: status.setText(str(error)),
)


@bot.on("READY")
def ready(shard: Shard, data: dict) -> None:
    status.setText(f"connected as {data['user']['username']}")


@bot.on("MESSAGE_CREATE")
def message(shard: Shard, data: dict) -> None:
    item = QTreeWidgetItem(messages, [data["author"]["username"], data["content"]])
    messages.scrollToItem(item)


# Python handles Ctrl-C when it has something to do, and Qt leaves it nothing.
timer = QTimer()
timer.timeout.connect(lambda: None)
timer.start(200)
bot.start(os.environ.get("DISCORD_GATEWAY", "wss://gateway.discord.gg/"))
sys.exit(application.exec())
