"""One bot over many machines, with Redis in the middle.

The names here need the extra ``redis``, ``pip install "shardlib[redis]"``, and a server: Redis 6.2
or later, or Valkey. A module is loaded when one of its names is first used.
"""

from __future__ import annotations

__all__ = [
    "Consumer",
    "ConsumerStats",
    "FleetError",
    "FleetEvent",
    "Gap",
    "RedisAway",
    "Watermarks",
]

TYPE_CHECKING = False  # type checkers take this name for true; typing itself is slow to import
if TYPE_CHECKING:
    from shardlib.fleet.consumer import Consumer, ConsumerStats
    from shardlib.fleet.errors import FleetError, RedisAway
    from shardlib.fleet.fleetevents import FleetEvent, Gap
    from shardlib.fleet.orderedstreams import Watermarks
else:
    # Hidden from type checkers: to them a module with __getattr__ has every name.

    # The modules imported from above, the cheapest first.
    _MODULES = ("errors", "fleetevents", "orderedstreams", "consumer")

    def __getattr__(name):
        if name not in __all__:
            # The import system, too, asks for submodules, and looks for a file after this error.
            raise AttributeError(f"module 'shardlib.fleet' has no attribute {name!r}")
        from shardlib import lazy

        found = globals()[name] = lazy.find("shardlib.fleet", _MODULES, name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
