"""How scripts are called in Redis: many at once, by digest, and with their texts if needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import redis.exceptions

from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.rediserrors import ERRORS, fleet_error


class Script:
    """A script in Lua, which Redis runs without anything else happening meanwhile.

    :param text: the script. It names no key itself: all come as KEYS, and share a hash slot.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """One call of a script.

    :param script: to run.
    :param keys: of one hash slot.
    :param arguments: what the script finds in ARGV.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]


def call_all(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Call scripts in one pipeline, and return what they have answered.

    Redis forgets its scripts when it restarts. It is not asked beforehand whether it has them,
    which would be a round trip more each time: the calls that find no script are repeated with its
    text, after all others. So no two calls may depend on each other's order.

    :param client: to call through.
    :param calls: any number; none asks nothing.
    :returns: for each call, in their order, its answer, or the :class:`FleetError` with which Redis
        refused it.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses the connection.
    """
    answers = _send(client, "EVALSHA", [(each.script.digest, each) for each in calls])
    missing = [
        number
        for number, answer in enumerate(answers)
        if isinstance(answer, redis.exceptions.NoScriptError)
    ]
    # EVAL loads the script, too, whichever node of a cluster the call goes to.
    repeated = _send(client, "EVAL", [(calls[i].script.text, calls[i]) for i in missing])
    for number, answer in zip(missing, repeated, strict=True):
        answers[number] = answer
    return [_judge(call, answer) for call, answer in zip(calls, answers, strict=True)]


def call_one(client: Client, call: Call) -> Any:
    """Call one script, and return what it has answered.

    :param client: to call through.
    :param call: of the script.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    (answer,) = call_all(client, [call])
    raise_first([answer])
    return answer


def raise_first(answers: Iterable[object]) -> None:
    """Raise the first error among answers, once all of them were taken in.

    :param answers: of :func:`call_all`, or what was made of them.
    :raises FleetError: if there is one.
    """
    for answer in answers:
        if isinstance(answer, FleetError):
            raise answer


def _send(client: Client, command: str, calls: Sequence[tuple[str, Call]]) -> list[Any]:
    if not calls:
        return []
    try:
        with client.pipeline(transaction=False) as pipeline:
            for script, call in calls:
                pipeline.execute_command(
                    command, script, len(call.keys), *call.keys, *call.arguments
                )
            return pipeline.execute(raise_on_error=False)
    except ERRORS as error:
        raise fleet_error(error) from error


def _judge(call: Call, answer: Any) -> Any:
    if not isinstance(answer, ERRORS):
        return answer
    refused: FleetError = fleet_error(answer, call.keys)
    refused.__cause__ = answer
    return refused
