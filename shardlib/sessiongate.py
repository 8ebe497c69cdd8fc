"""SessionGate: whether a shard may resume its session, or another process has taken it over."""

from __future__ import annotations

from typing import Protocol


class SessionGate(Protocol):
    """An object of the user's that the option ``session_gate`` takes.

    Where several processes hand sessions on to each other, one that stood still for a while may
    wake when another has resumed its session. A Resume would take the session back. So the gate
    asks the place that all processes have in common whose the session is.
    """

    def may_resume(self, shard_id: int, session_id: str) -> bool:
        """Tell whether a shard may resume a session. The reader calls this before each Resume.

        It may block: the socket is open and heartbeats go on meanwhile, as during a callback.

        :param shard_id: number of the shard, an int.
        :param session_id: of the session, a str.
        :returns: False if the session belongs to another process now.
        :raises ShardClosed: to close the shard with that error. Any other Exception costs the
            connection: on_socket_error is told of it, and the gate is asked again on the next one.
        """


def check_may_resume(answer: object) -> bool:
    """Check what ``may_resume`` of a session gate returned.

    :param answer: what it returned.
    :raises TypeError: if it is not a bool: None, say, of a function that forgot its ``return``.
    """
    if not isinstance(answer, bool):
        raise TypeError(
            "session_gate.may_resume() must return True to let a shard resume its session, or "
            f"False, not {answer!r}"
        )
    return answer
