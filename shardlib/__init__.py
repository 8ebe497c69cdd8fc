"""A synchronous client for Discord's Gateway: threads and plain functions, no event loop.

The names of :mod:`shardlib.api` are found here, and imported when one of them is first used. So the
command line is awake, and can be interrupted, before the libraries that it needs have been loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardlib.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'shardlib' has no attribute {name!r}")
    from shardlib import api

    globals().update((public, getattr(api, public)) for public in api.__all__)
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module 'shardlib' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    from shardlib import api

    return [*globals(), *api.__all__]
