"""Where callbacks are called: on the thread that owns a life, or by a dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardlib.callbacks import Callbacks, Logger
from shardlib.text import describe

if TYPE_CHECKING:
    from shardlib.currentsession import CurrentSession
    from shardlib.dispatcher import Dispatcher
    from shardlib.lifecycle import Lifecycle


def create_callbacks(
    owner: Any,
    logger: Logger,
    dispatcher: Dispatcher | None,
    *,
    lifecycle: Callable[[], Lifecycle],
    session: Callable[[], CurrentSession],
    hide_token: Callable[[str], str],
    stop: Callable[[BaseException], object],
    slow_callback: float | None,
    thread_prefix: str,
    meanwhile: str = "no event can be received meanwhile",
) -> Callbacks:
    """The callbacks of a shard, or of a manager.

    :param owner: the first argument of each function: the shard, or the manager.
    :param logger: the user's.
    :param dispatcher: the user's, None if the thread that owns the life calls the functions.
    :param lifecycle: returns the owner's. It and the session may not be there yet.
    :param session: returns the session under way.
    :param hide_token: as for :class:`shardlib.callbacks.Callbacks`, as are the rest.
    :raises TypeError: if `dispatcher` is no dispatcher.
    """
    options: dict[str, Any] = {
        "hide_token": hide_token,
        "in_reader_thread": lambda: lifecycle().in_reader_thread(),
        "stop": stop,
        "notify": lambda: lifecycle().notify(),
        "slow_callback": slow_callback,
        "thread_prefix": thread_prefix,
        "meanwhile": meanwhile,
    }
    if dispatcher is None:
        return Callbacks(owner, logger, **options)
    # Here: most shards call their callbacks on the reader thread, and need neither module.
    from shardlib.dispatchedcallbacks import DispatchedCallbacks
    from shardlib.dispatcher import Dispatcher

    if not isinstance(dispatcher, Dispatcher):
        raise TypeError(
            "dispatcher must be a Mailbox, a Worker or a Pool of shardlib.dispatch, or of a "
            f"subclass of its Dispatcher, not {describe(dispatcher)}"
        )
    if type(dispatcher).submit is Dispatcher.submit:
        raise TypeError(
            f"dispatcher cannot be a {type(dispatcher).__name__}, which has no method submit() "
            "of its own: it is called with each delivery, and has to call or drop it"
        )
    return DispatchedCallbacks(
        owner,
        logger,
        **options,
        dispatcher=dispatcher,
        session=session,
        wait_for_room=lambda *waiting: lifecycle().wait_for_room(*waiting),
    )
