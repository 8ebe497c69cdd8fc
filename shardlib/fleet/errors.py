"""The errors of a fleet that a user can meet."""

from __future__ import annotations

from shardlib.errors import ShardError


class FleetError(ShardError):
    """Redis refused what the fleet asked of it, and will do so until a person changes something.

    A wrong password, missing permissions, a server that is too old, a key that another program has
    written: the message says which, and what to do.
    """


class RedisAway(FleetError):
    """Redis did not answer, or takes no writes for the moment; asking again later may succeed.

    Whether Redis has carried out what was asked is unknown if the answer was lost on its way. So
    each script of the fleet may be called twice with the same arguments.
    """


def no_such_fleet(name: str) -> FleetError:
    """The error if nobody has said how many shards a fleet has.

    :param name: of the fleet.
    """
    return FleetError(
        f"there is no fleet {name!r} in this Redis: nobody has said how many shards it has. Call "
        'Fleet.init() once, or run "shardlib init"'
    )
