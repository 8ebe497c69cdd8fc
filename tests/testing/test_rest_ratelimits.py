"""Rate limits: of each route, of the token, and by whose clock."""

from __future__ import annotations

import time

import pytest

from shardlib.testing import Channel, Clock, LocalGateway
from shardlib.testing.rest.errors import ApiError
from shardlib.testing.rest.ratelimits import RateLimit, RateLimits
from tests.testing.rest import Rest, rest_of


class StandingClock(Clock):
    """A clock that goes only when it is advanced."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_takes_so_many_requests_in_its_period() -> None:
    clock = StandingClock()
    limits = RateLimits(clock)
    limit = RateLimit("some", 2, 5.0)
    before = time.time()
    first = limits.count(limit, ("1",))
    after = time.time()
    assert first["X-RateLimit-Limit"] == "2"
    assert (first["X-RateLimit-Remaining"], first["X-RateLimit-Reset-After"]) == ("1", "5.000")
    assert before + 4.9 < float(first["X-RateLimit-Reset"]) < after + 5.1
    clock.now += 1.5
    assert limits.count(limit, ("1",))["X-RateLimit-Remaining"] == "0"
    with pytest.raises(ApiError) as caught:
        limits.count(limit, ("1",))
    assert caught.value.status == 429
    assert caught.value.body == {
        "message": "You are being rate limited.",
        "retry_after": 3.5,
        "global": False,
    }
    assert caught.value.headers["Retry-After"] == "4"
    assert caught.value.headers["X-RateLimit-Scope"] == "user"
    assert caught.value.headers["X-RateLimit-Remaining"] == "0"
    # Another channel, and another route, have limits of their own.
    assert limits.count(limit, ("2",))["X-RateLimit-Remaining"] == "1"
    other = limits.count(RateLimit("other", 2, 5.0), ("1",))
    assert other["X-RateLimit-Bucket"] != first["X-RateLimit-Bucket"]
    clock.now += 3.5
    assert limits.count(limit, ("1",))["X-RateLimit-Remaining"] == "1"


def test_the_token_has_fifty_requests_a_second() -> None:
    clock = StandingClock()
    limits = RateLimits(clock)
    for _ in range(50):
        limits.count_globally()
    clock.now += 0.25
    with pytest.raises(ApiError) as caught:
        limits.count_globally()
    assert caught.value.body["global"] is True
    assert caught.value.body["retry_after"] == 0.75
    assert caught.value.headers == {
        "X-RateLimit-Global": "true",
        "X-RateLimit-Scope": "global",
        "Retry-After": "1",
        "Via": "1.1 google",
    }
    clock.now += 0.75
    limits.count_globally()


def test_windows_that_have_ended_are_forgotten() -> None:
    clock = StandingClock()
    limits = RateLimits(clock)
    for number in range(3000):
        limits.count(RateLimit("some", 1, 1.0), (str(number),))
        clock.now += 0.01
    assert len(limits._windows) <= 1000


def test_the_sixth_message_of_a_burst_waits(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    for number in range(5):
        rest.write(channel, str(number))
    path = f"/channels/{channel['id']}/messages"
    response = rest.send("POST", path, json={"content": "6"})
    assert response.status_code == 429
    error = response.json()
    assert error["global"] is False and 0 < error["retry_after"] <= 5
    assert float(response.headers["X-RateLimit-Reset-After"]) == error["retry_after"]
    assert len(channel.messages) == 5
    other = next(iter(local_gateway.world.guilds.values())).text_channels[1]
    rest.write(other)
    local_gateway.clock.advance(5)
    rest.write(channel)


def test_the_fifty_requests_are_those_of_all_routes_but_the_ones_of_interactions() -> None:
    with LocalGateway(clock=StandingClock()) as gateway, rest_of(gateway) as rest:
        guild = next(iter(gateway.world.guilds))
        for _ in range(25):
            rest.call("GET", "/users/@me")
            rest.call("GET", f"/guilds/{guild}")
        response = rest.send("GET", "/users/@me")
        assert (response.status_code, response.json()["global"]) == (429, True)
        assert response.headers["X-RateLimit-Scope"] == "global"
        callback = "/interactions/5/x/callback"
        assert rest.error("POST", callback, {"type": 5}) == (404, 10062)


def test_rate_limits_can_be_switched_off_and_on(
    local_gateway: LocalGateway, rest: Rest, channel: Channel
) -> None:
    local_gateway.rate_limits = False
    for _ in range(60):
        rest.write(channel)
    path = f"/channels/{channel['id']}/messages"
    response = rest.send("POST", path, json={"content": "a"})
    assert not [name for name in response.headers if name.lower().startswith("x-ratelimit")]
    local_gateway.rate_limits = True
    statuses = [rest.send("GET", "/gateway").status_code for _ in range(12)]
    assert 429 in statuses
