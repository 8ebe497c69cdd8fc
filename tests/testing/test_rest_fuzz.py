"""Whatever a client sends, it gets an answer that is JSON: no request ends in a traceback."""

from __future__ import annotations

import copy
import json
import random
from typing import Any
from urllib.parse import quote

import pytest

from shardlib.testing import LocalGateway
from shardlib.testing.clock import Clock
from shardlib.testing.interactions import COMMAND, COMPONENT, Interactions
from shardlib.testing.rest.backend import Backend
from shardlib.testing.rest.log import RequestLog
from shardlib.testing.rest.registry import CommandRegistry
from shardlib.testing.rest.request import ReceivedRequest
from shardlib.testing.rest.resources import make_api
from shardlib.testing.world import World

NAMES = """
content embeds title description fields name value inline footer text author url image color type
components custom_id style label options min_values max_values emoji accessory component items media
allowed_mentions parse users roles replied_user message_reference message_id channel_id
fail_if_not_exists attachments id filename flags nonce enforce_nonce tts messages recipient_id data
choices required autocomplete min_length max_length name_localizations integration_types contexts
default_member_permissions sticker_ids poll
""".split()

BUTTON = {"type": 2, "style": 1, "label": "a", "custom_id": "b", "emoji": {"name": "👍"}}
MENU = {"type": 3, "custom_id": "c", "options": [{"label": "a", "value": "b"}], "min_values": 0}
MESSAGE = {
    "content": "a",
    "embeds": [{"title": "a", "fields": [{"name": "a", "value": "b"}], "footer": {"text": "a"}}],
    "allowed_mentions": {"parse": ["users"], "roles": ["1"]},
    "components": [{"type": 1, "components": [BUTTON]}, {"type": 1, "components": [MENU]}],
    "flags": 4,
    "attachments": [],
    "nonce": "a",
    "enforce_nonce": True,
}
MODAL = {
    "custom_id": "a",
    "title": "b",
    "components": [
        {"type": 18, "label": "a", "component": {"type": 4, "custom_id": "a", "style": 1}},
    ],
}
OPTION = {"type": 3, "name": "a", "description": "b", "choices": [{"name": "a", "value": "b"}]}
COMMAND_BODY = {
    "name": "a",
    "description": "b",
    "name_localizations": {"de": "a"},
    "options": [{"type": 1, "name": "a", "description": "b", "options": [OPTION]}],
}
VALID: list[Any] = [
    MESSAGE,
    COMMAND_BODY,
    [COMMAND_BODY, {"name": "B", "type": 2}],
    {"type": 4, "data": MESSAGE},
    {"type": 5, "data": {"flags": 64}},
    {"type": 7, "data": MESSAGE},
    {"type": 9, "data": MODAL},
    {"recipient_id": "1"},
    {"messages": ["1", "2"]},
]

WORDS = [
    "",
    "a",
    "0",
    "1",
    "-1",
    "users",
    "everyone",
    "x" * 2001,
    "@original",
    "👍",
    "\ud800",
    "@me",
]
NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 17, 64, 32768, -1, 1 << 70, 0.5, 1e308]


class Maker:
    """Makes odd values, mostly with the names that the API knows."""

    def __init__(self, seed: int, ids: list[str]) -> None:
        self.rng = random.Random(seed)
        self.ids = ids

    def value(self, depth: int = 0) -> Any:
        kind = self.rng.random()
        if depth < 5 and kind < 0.35:
            names = self.rng.sample(NAMES, self.rng.randrange(6))
            return {name: self.value(depth + 1) for name in names}
        if depth < 5 and kind < 0.6:
            return [self.value(depth + 1) for _ in range(self.rng.randrange(4))]
        return self.rng.choice([*WORDS, *NUMBERS, *self.ids, None, True, False])

    def body(self) -> Any:
        """A valid body with up to two odd values in it."""
        body = copy.deepcopy(self.rng.choice(VALID))
        for _ in range(self.rng.randrange(3)):
            node = body
            while True:
                keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
                if not keys:
                    break
                key = self.rng.choice(keys)
                if isinstance(node[key], (dict, list)) and self.rng.random() < 0.8:
                    node = node[key]
                else:
                    node[key] = self.value(3)
                    break
        return body

    def request(self, method: str, template: str, token: str) -> ReceivedRequest:
        parts = [
            self.rng.choice([*self.ids, "👍", "5", "x", "@original"]) if part[:1] == "{" else part
            for part in template.split("/")
        ]
        query = self.rng.choice(["", "?limit=1", "?before=x", "?around=5&limit=%00", "?a[]=&&="])
        body = json.dumps(self.body() if self.rng.random() < 0.8 else self.value()).encode()
        headers = {"authorization": f"Bot {token}", "content-type": "application/json"}
        if self.rng.random() < 0.1:
            body = bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(50)))
            headers["content-type"] = self.rng.choice(
                ["multipart/form-data; boundary=x", "application/json", "a/b", "", "x;;=;\xff"]
            )
        path = "/".join(quote(part, safe="@") for part in parts)
        return ReceivedRequest(method, f"/api/v10{path}{query}", headers, body)


@pytest.mark.parametrize("seed", range(8))
def test_every_request_gets_an_answer(seed: int) -> None:
    world, clock, rules = World(seed), Clock(), LocalGateway(rate_limits=False).rules
    interactions, log = Interactions(world, clock), RequestLog()
    backend = Backend(
        rules=rules,
        world=world,
        clock=clock,
        dispatch=lambda name, data: json.dumps(data),
        url=lambda: "ws://x/",
        http_url=lambda: "http://x/api/v10",
        session_starts=dict,
    )
    api = make_api(backend, CommandRegistry(world, clock), interactions, log)
    guild = next(iter(world.guilds.values()))
    channel = guild.text_channels[0]
    source = world.write_message(channel, world.user, "a")
    made = [
        interactions.make(COMMAND, {"name": "a", "type": 1}, channel, guild.owner_id),
        interactions.make(COMPONENT, {"custom_id": "a"}, channel, guild.owner_id, source=source),
    ]
    ids = [guild.id, channel["id"], source["id"], world.application["id"], guild.owner_id]
    ids += [each for interaction in made for each in (interaction.id, interaction.token)]
    maker = Maker(seed, ids)
    routes = [route for _, route in api._router._routes]
    statuses = set()
    for _ in range(40):
        for route in routes:
            request = maker.request(route.method, route.template, rules.token)
            response = api.answer(request)
            statuses.add(response.status)
            assert 200 <= response.status < 500, request
            if response.body and response.headers.get("Content-Type") == "application/json":
                json.loads(response.body)
    assert statuses >= {200, 204, 400, 404}
