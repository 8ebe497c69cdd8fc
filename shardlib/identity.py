"""Identity: who connects, and what Identify and Resume say about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shardlib import payloads
from shardlib.currentsession import CurrentSession
from shardlib.payloads import JSONModule, Payload


class Identity:
    """What stays the same in every Identify of a shard, copied and checked.

    :param token: the bot's token, without "Bot ".
    :param intents: what the bot wants to receive.
    :param shard_id: number of the shard, from 0.
    :param shard_count: number of the bot's shards.
    :param properties: connection properties, or None for the library's own.
    :param large_threshold: members from which offline ones are left out, or None.
    :param compress: True to ask for payload compression.
    :param json: the user's module, which may be able to write more in `properties` than ours.
    :raises ValueError: if an argument has a value that the Gateway would refuse.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        *,
        token: str,
        intents: int,
        shard_id: int,
        shard_count: int,
        properties: Mapping[str, Any] | None,
        large_threshold: int | None,
        compress: bool,
        json: JSONModule,
    ) -> None:
        payload = payloads.identify(
            token=token,
            intents=intents,
            shard_id=shard_id,
            shard_count=shard_count,
            properties=payloads.default_properties() if properties is None else properties,
            large_threshold=large_threshold,
            compress=compress,
        )
        self.token = token
        self.intents = intents
        self.shard_id = shard_id
        self.shard_count = shard_count
        self.large_threshold = large_threshold
        # As text, which takes a fifth of the memory: it is needed once for each session.
        self._payload = _write(_copy(payload, json))

    def __repr__(self) -> str:
        return f"<Identity of shard {self.shard_id}/{self.shard_count}>"  # without the token

    def presence(self, presence: Mapping[str, Any] | None, json: JSONModule) -> Payload | None:
        """A copy of a presence with which later Identifies can begin.

        :param presence: some fields of a presence update, or None for none.
        :param json: the user's module, which may be able to write more in `presence` than ours.
        :raises ValueError: if the Gateway would refuse an Identify with it.
        :raises TypeError: if it, or one of its fields, has the wrong type.
        """
        if presence is None:
            self.identify_text(None)
            return None
        copy = _copy(payloads.check_presence(presence), json)
        self.identify_text(copy)
        return copy

    def identify_text(self, presence: Payload | None) -> str:
        """The Identify payload, as it is sent.

        :param presence: as :meth:`presence` returned it.
        :raises ValueError: if it is larger than the Gateway takes.
        """
        payload = json.loads(self._payload)
        if presence is not None:
            payload["d"]["presence"] = presence
        text = _write(payload)
        try:
            payloads.check_send(text)
        except ValueError as error:
            raise ValueError(f"Identify, with properties and presence: {error}") from None
        return text

    def resume_text(self, session: CurrentSession) -> str:
        """The Resume payload for a session, as it is sent."""
        return _write(
            payloads.resume(
                token=self.token,
                session_id=session.session_id or "",
                sequence=session.resume_sequence,
            ),
            # A session id is a peer's: whatever is in it can be sent, and raises no error that
            # would show the token.
            ascii_only=True,
        )

    def hide_token(self, text: str) -> str:
        """A text without the token, for logs and errors."""
        return payloads.hide_token(text, self.token)


def _write(payload: Payload, *, ascii_only: bool = False) -> str:
    # By the standard library: a JSON module of the user's may fail, or take its time.
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=ascii_only)


def _copy(value: Payload, module: JSONModule) -> Payload:
    """A deep copy that holds nothing but what JSON can say."""
    text = payloads.encode(value, module)
    try:
        copy: Payload = json.loads(text, parse_constant=payloads.refuse_constant)
    except ValueError as error:
        raise ValueError(f"Identify, with properties and presence: {error}") from None
    return copy
