"""Realistic events in the background."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .sessions import Event
from .words import EMOJIS, sentence
from .world import Guild, timestamp

if TYPE_CHECKING:
    from .server import LocalGateway

#: How often each event comes, relative to the others, in default traffic.
TRAFFIC_MIX: dict[str, float] = {
    "MESSAGE_CREATE": 30,
    "TYPING_START": 20,
    "PRESENCE_UPDATE": 25,
    "MESSAGE_UPDATE": 4,
    "MESSAGE_DELETE": 2,
    "MESSAGE_REACTION_ADD": 8,
    "MESSAGE_REACTION_REMOVE": 1,
    "VOICE_STATE_UPDATE": 5,
    "GUILD_MEMBER_ADD": 1,
    "GUILD_MEMBER_UPDATE": 2,
    "GUILD_MEMBER_REMOVE": 1,
    "GUILD_CREATE": 0.2,
    "GUILD_UPDATE": 0.3,
    "GUILD_ROLE_UPDATE": 0.5,
    "CHANNEL_UPDATE": 0.5,
    "INTERACTION_CREATE": 1,
}

# Seconds between two batches, the most of one batch, and how many unsent bytes on any one
# connection make the traffic wait.
_TICK = 0.01
_BATCH = 400
_ENOUGH = 1 << 20

# Without a rate, making events up would take longer than sending them: so many are made, and
# then repeated.
_ROUND = 2000


class Traffic:
    """A source of events; :meth:`LocalGateway.traffic` makes it.

    What it sends changes the gateway's world, so that it all stays consistent: who joins is a
    member from then on, who reacts does so to a message that was sent.  The same seed gives
    the same events; the ids and times of what is new are those of the moment.
    """

    def __init__(
        self, gateway: LocalGateway, rate: float | None, mix: Mapping[str, float] | None
    ) -> None:
        mix = TRAFFIC_MIX if mix is None else mix
        if rate is not None and not rate > 0:
            raise ValueError(f"rate is a positive number of events a second, not {rate}")
        unknown = sorted(set(mix) - set(_MAKERS))
        if unknown:
            raise ValueError(f"cannot make up {', '.join(unknown)}; can: {', '.join(_MAKERS)}")
        if not any(mix.values()) or any(share < 0 for share in mix.values()):
            raise ValueError("the shares of a mix are 0 or more, and not all 0")
        #: How many events it has made, whether or not anyone was there to get them.
        self.events = 0
        self._gateway = gateway
        self._rate = rate
        self._names = list(mix)
        self._shares = list(mix.values())
        self._dice = random.Random(f"{gateway.world.seed}/traffic")
        self._running = True
        # With no rate: the events to repeat, and which is next.
        self._round: list[Event] = []
        self._next = 0
        # The last message of each channel, to be edited, deleted, reacted to.
        self._recent: dict[str, dict[str, Any]] = {}
        # Events owed since the last tick; real time, since the gateway's clock may leap.
        self._owed = 0.0
        self._ticked_at = time.monotonic()

    def stop(self) -> None:
        """Send no more."""
        self._running = False

    def _start(self) -> None:
        self._gateway._call_soon(self._tick)

    def _tick(self) -> None:
        """Send what is due; on the gateway's thread."""
        if not self._running:
            return
        now = time.monotonic()
        with self._gateway._lock:
            if self._rate is not None:
                self._owed += (now - self._ticked_at) * self._rate
            self._ticked_at = now
            sessions = self._gateway._sessions.alive()
            # When some client takes its events too slowly, all wait, and nothing is owed.
            held_up = any(
                each.connection and each.connection._unsent > _ENOUGH for each in sessions
            )
            if held_up:
                self._owed = 0.0
            else:
                due = _BATCH if self._rate is None else min(_BATCH, int(self._owed))
                self._owed -= due
                for event in self._events(due):
                    self._gateway._issue(event, sessions)
                    self.events += 1
        behind = (self._rate is None or self._owed >= 1) and not held_up
        self._gateway._call_later(0 if behind else _TICK, self._tick)

    def _events(self, count: int) -> list[Event]:
        """Return the next events, about ``count``."""
        if self._rate is not None:
            return self._make(count)
        if len(self._round) < _ROUND:
            made = self._make(count)
            self._round += made
            return made
        events = self._round[self._next : self._next + count]
        self._next = self._next + count if self._next + count < len(self._round) else 0
        return events

    def _make(self, count: int) -> list[Event]:
        guilds = list(self._gateway.world.guilds.values())
        if not guilds:
            return []
        user_id = self._gateway.world.user["id"]
        return [
            Event(name, data, user_id)
            for kind in self._dice.choices(self._names, self._shares, k=count)
            for name, data in _MAKERS[kind](self, self._dice.choice(guilds))
        ]


_Events = list[tuple[str, Any]]


def _someone(traffic: Traffic, guild: Guild) -> str:
    return traffic._dice.choice([*guild.members])


def _message_create(traffic: Traffic, guild: Guild) -> _Events:
    channel = traffic._dice.choice(guild.text_channels)
    message = traffic._gateway.world.make_message(channel, _someone(traffic, guild))
    traffic._recent[channel["id"]] = message
    return [("MESSAGE_CREATE", message)]


def _message(traffic: Traffic, guild: Guild) -> dict[str, Any] | None:
    """Return a message of this guild that is still there."""
    channel = traffic._dice.choice(guild.text_channels)
    return traffic._recent.get(channel["id"])


def _message_update(traffic: Traffic, guild: Guild) -> _Events:
    message = _message(traffic, guild)
    if message is None:
        return _message_create(traffic, guild)
    message["content"] = sentence(traffic._dice)
    message["edited_timestamp"] = timestamp(time.time() * 1000)
    return [("MESSAGE_UPDATE", message)]


def _message_delete(traffic: Traffic, guild: Guild) -> _Events:
    message = _message(traffic, guild)
    if message is None:
        return _message_create(traffic, guild)
    del traffic._recent[message["channel_id"]]
    keys = ("id", "channel_id", "guild_id")
    return [("MESSAGE_DELETE", {key: message[key] for key in keys})]


def _reaction(event: str) -> Callable[[Traffic, Guild], _Events]:
    def make(traffic: Traffic, guild: Guild) -> _Events:
        message = _message(traffic, guild)
        if message is None:
            return _message_create(traffic, guild)
        user_id = _someone(traffic, guild)
        data: dict[str, Any] = {
            "user_id": user_id,
            "type": 0,
            "message_id": message["id"],
            "emoji": {"name": traffic._dice.choice(EMOJIS), "id": None},
            "channel_id": message["channel_id"],
            "burst": False,
            "guild_id": guild.id,
        }
        if event == "MESSAGE_REACTION_ADD":
            data["member"] = guild.members[user_id]
            data["message_author_id"] = message["author"]["id"]
        return [(event, data)]

    return make


def _typing_start(traffic: Traffic, guild: Guild) -> _Events:
    user_id = _someone(traffic, guild)
    typing = {
        "user_id": user_id,
        "timestamp": int(time.time()),
        "member": guild.members[user_id],
        "channel_id": traffic._dice.choice(guild.text_channels)["id"],
        "guild_id": guild.id,
    }
    return [("TYPING_START", typing)]


def _presence_update(traffic: Traffic, guild: Guild) -> _Events:
    user_id = _someone(traffic, guild)
    presence = guild.presence(user_id, traffic._dice)
    guild.presences[user_id] = presence
    return [("PRESENCE_UPDATE", {**presence, "guild_id": guild.id})]


def _voice_state_update(traffic: Traffic, guild: Guild) -> _Events:
    user_id = _someone(traffic, guild)
    leaves = user_id in guild.voice_states and traffic._dice.random() < 0.7
    channel_id = None if leaves else traffic._dice.choice(guild.voice_channels)["id"]
    return [("VOICE_STATE_UPDATE", guild.join_voice(user_id, channel_id))]


def _guild_member_add(traffic: Traffic, guild: Guild) -> _Events:
    return [("GUILD_MEMBER_ADD", guild.add_member(traffic._gateway.world, traffic._dice))]


def _guild_member_update(traffic: Traffic, guild: Guild) -> _Events:
    member = guild.members[_someone(traffic, guild)]
    member["nick"] = sentence(traffic._dice)[:32]
    return [("GUILD_MEMBER_UPDATE", {**member, "guild_id": guild.id})]


def _guild_member_remove(traffic: Traffic, guild: Guild) -> _Events:
    user_id = _someone(traffic, guild)
    if user_id in (guild.owner_id, traffic._gateway.world.user["id"]):
        return _guild_member_update(traffic, guild)
    member = guild.remove_member(user_id)
    return [("GUILD_MEMBER_REMOVE", {"guild_id": guild.id, "user": member["user"]})]


def _guild_create(traffic: Traffic, guild: Guild) -> _Events:
    """A guild goes through an outage: it becomes unavailable, and comes back."""
    gone = {"id": guild.id, "unavailable": True}
    return [("GUILD_DELETE", gone), ("GUILD_CREATE", guild.create_object())]


def _guild_update(traffic: Traffic, guild: Guild) -> _Events:
    return [("GUILD_UPDATE", guild.guild_object())]


def _guild_role_update(traffic: Traffic, guild: Guild) -> _Events:
    role = traffic._dice.choice(guild.roles[1:])
    role["hoist"] = not role["hoist"]
    return [("GUILD_ROLE_UPDATE", {"guild_id": guild.id, "role": role})]


def _channel_update(traffic: Traffic, guild: Guild) -> _Events:
    channel = traffic._dice.choice(guild.text_channels)
    channel["topic"] = sentence(traffic._dice)
    return [("CHANNEL_UPDATE", channel)]


def _interaction_create(traffic: Traffic, guild: Guild) -> _Events:
    channel = traffic._dice.choice(guild.text_channels)
    member = guild.members[_someone(traffic, guild)]
    world = traffic._gateway.world
    interaction = {
        "version": 1,
        "type": 2,
        "token": f"local-{traffic._dice.getrandbits(128):x}",
        "member": {**member, "permissions": "2248473465835073"},
        "locale": "en-US",
        "id": world.new_id(),
        "guild_locale": "en-US",
        "guild_id": guild.id,
        "guild": {"id": guild.id, "locale": "en-US", "features": ["COMMUNITY", "NEWS"]},
        "entitlements": [],
        "data": {"type": 1, "name": "ping", "id": world.application["id"]},
        "context": 0,
        "channel_id": channel["id"],
        "channel": channel,
        "authorizing_integration_owners": {"0": guild.id},
        "attachment_size_limit": 10485760,
        "application_id": world.application["id"],
        "app_permissions": "2248473465835073",
    }
    return [("INTERACTION_CREATE", interaction)]


_MAKERS: dict[str, Callable[[Traffic, Guild], _Events]] = {
    "MESSAGE_CREATE": _message_create,
    "MESSAGE_UPDATE": _message_update,
    "MESSAGE_DELETE": _message_delete,
    "MESSAGE_REACTION_ADD": _reaction("MESSAGE_REACTION_ADD"),
    "MESSAGE_REACTION_REMOVE": _reaction("MESSAGE_REACTION_REMOVE"),
    "TYPING_START": _typing_start,
    "PRESENCE_UPDATE": _presence_update,
    "VOICE_STATE_UPDATE": _voice_state_update,
    "GUILD_MEMBER_ADD": _guild_member_add,
    "GUILD_MEMBER_UPDATE": _guild_member_update,
    "GUILD_MEMBER_REMOVE": _guild_member_remove,
    "GUILD_CREATE": _guild_create,
    "GUILD_UPDATE": _guild_update,
    "GUILD_ROLE_UPDATE": _guild_role_update,
    "CHANNEL_UPDATE": _channel_update,
    "INTERACTION_CREATE": _interaction_create,
}
