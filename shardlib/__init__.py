"""A synchronous client for Discord's Gateway: threads and plain functions, no event loop.

The names of :mod:`shardlib.api` are found here, and imported when one of them is first used. So the
command line is awake, and can be interrupted, before the libraries that it needs have been loaded.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers know the name; typing is slow to import
if TYPE_CHECKING:
    from typing import Any

    from shardlib.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Every name of the API is a class's; other names are the submodules', which import looks for.
    if name[0].isupper() or name == "__all__":
        api = importlib.import_module("shardlib.api")
        globals().update((public, getattr(api, public)) for public in ("__all__", *api.__all__))
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module 'shardlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *importlib.import_module("shardlib.api").__all__]
