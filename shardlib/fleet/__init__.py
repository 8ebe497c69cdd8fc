"""One bot over many machines, with Redis in the middle.

The names here need the extra ``redis``, ``pip install "shardlib[redis]"``, and a server: Redis 6.2
or later, or Valkey. A module is loaded when one of its names is first used.
"""

from __future__ import annotations

__all__ = [
    "Commands",
    "Consumer",
    "ConsumerStats",
    "Fleet",
    "FleetError",
    "FleetEvent",
    "FleetShardInfo",
    "Gap",
    "RedisAway",
    "Watermarks",
    "Worker",
    "WorkerStats",
]

TYPE_CHECKING = False  # type checkers take this name for true; typing itself is slow to import
if TYPE_CHECKING:
    from shardlib.fleet.commands import Commands
    from shardlib.fleet.consumer import Consumer, ConsumerStats
    from shardlib.fleet.errors import FleetError, RedisAway
    from shardlib.fleet.fleet import Fleet, FleetShardInfo
    from shardlib.fleet.fleetevents import FleetEvent, Gap
    from shardlib.fleet.orderedstreams import Watermarks
    from shardlib.fleet.worker import Worker, WorkerStats
else:
    # Hidden from type checkers: to them a module with __getattr__ has every name.

    # The modules imported from above, the cheapest first.
    _MODULES = (
        "errors",
        "fleetevents",
        "orderedstreams",
        "consumer",
        "worker",
        "commands",
        "fleet",
    )

    def __getattr__(name):
        if name not in __all__:
            # The import system, too, asks for submodules, and looks for a file after this error.
            raise AttributeError(f"module 'shardlib.fleet' has no attribute {name!r}")
        from shardlib import lazy

        found = globals()[name] = lazy.find("shardlib.fleet", _MODULES, name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
