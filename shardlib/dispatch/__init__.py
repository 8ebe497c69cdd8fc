"""Where the callbacks of a shard are called: ``Shard(..., dispatcher=Mailbox())``.

Without a dispatcher the reader thread calls them. A :class:`Mailbox` keeps them until the program
calls them in a thread of its own; a :class:`Worker` has one thread for them, a :class:`Pool` has
several. :func:`tk` and :func:`qt` make mailboxes that the loop of a window empties.
"""

from __future__ import annotations

from shardlib.dispatch.mailbox import Mailbox
from shardlib.dispatch.pool import Pool
from shardlib.dispatch.qtmailbox import qt
from shardlib.dispatch.tkmailbox import tk
from shardlib.dispatch.worker import Worker
from shardlib.dispatcher import Delivery, Dispatcher

__all__ = ["Delivery", "Dispatcher", "Mailbox", "Pool", "Worker", "qt", "tk"]
