"""Claiming, renewing and releasing shards, against real servers."""

from __future__ import annotations

import threading

import redis

from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import Claim, ClaimRequest, Outcome, ShardScripts, new_token
from tests.fleet.owner import (
    KEEP_EVENTS,
    LEASE,
    Owner,
    end_lease,
    expected,
    owner_of_new_shard,
    stream,
)
from tests.redis_server import RedisServer
from tests.support import Thread, not_none, wait_until


def test_a_shard_unknown_to_redis_is_held_for_the_time_of_a_lease(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    claims = [Owner(scripts).claim() for _ in range(3)]
    assert [claim.outcome for claim in claims] == [Outcome.HELD] * 3
    assert [claim.owner for claim in claims] == [""] * 3
    assert LEASE - 10 < claims[0].wait <= LEASE
    assert claims[2].wait <= claims[0].wait  # it does not begin anew
    end_lease(client, keys)
    claim = Owner(scripts).claim()
    assert claim == (Outcome.CLAIMED, 1, None, "", 0.0)


def test_a_shard_can_be_claimed_once_its_lease_has_expired(client: redis.Redis, keys: Keys) -> None:
    scripts = ShardScripts(client, keys, lease=0.05, keep_events=KEEP_EVENTS)
    first, second = Owner(scripts), Owner(scripts, name="two")
    wait_until(lambda: first.claim().outcome is Outcome.CLAIMED)
    wait_until(lambda: second.claim().outcome is Outcome.CLAIMED)
    assert second.fence == 2
    assert first.renew() is Outcome.FENCED


def test_a_living_lease_names_its_owner_and_the_time_left(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner_of_new_shard(scripts, client, keys)
    claim = Owner(scripts, name="two").claim()
    assert (claim.outcome, claim.owner) == (Outcome.HELD, "one")
    assert LEASE - 10 < claim.wait <= LEASE


def test_the_next_owner_gets_the_session_as_far_as_it_is_in_the_stream(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    first = owner_of_new_shard(scripts, client, keys)
    first.append([1, 2, 3], last_sequence=7)
    end_lease(client, keys)
    second = Owner(scripts, name="two")
    claim = second.claim()
    assert (claim.outcome, claim.fence) == (Outcome.CLAIMED, 2)
    assert claim.session == first.session
    assert not_none(claim.session).sequence == 7
    assert not_none(claim.session).shard_count == 16
    assert not_none(claim.session).resume_gateway_url == "wss://gateway.discord.gg"


def test_the_next_owner_is_told_who_had_the_shard_until_the_lease_ended(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    first = owner_of_new_shard(scripts, client, keys)
    end_lease(client, keys)
    second = Owner(scripts, name="two")
    assert second.claim().owner == "one"
    assert second.claim().owner == ""  # the same claim once more
    second.release()
    assert first.claim().owner == ""


def test_a_session_without_a_url_is_handed_on_without_one(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    first = owner_of_new_shard(scripts, client, keys)
    first.session = not_none(first.session)._replace(resume_gateway_url=None)
    first.append([1])
    first.release()
    assert not_none(Owner(scripts).claim().session).resume_gateway_url is None


def test_a_claim_whose_answer_was_lost_can_be_repeated(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1])
    end_lease(client, keys)
    claim = owner.claim()
    assert (claim.outcome, claim.fence) == (Outcome.CLAIMED, 1)
    assert not_none(claim.session).sequence == 1
    assert Owner(scripts, name="two").claim().outcome is Outcome.HELD


def test_of_many_who_claim_at_once_one_has_the_shard(
    redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    shards = range(20)
    start = threading.Barrier(4)

    def claim_all() -> set[int]:
        own = ShardScripts(redis_server.client(), keys, lease=LEASE, keep_events=KEEP_EVENTS)
        start.wait(10)
        own.claim({shard_id: ClaimRequest(new_token(), "first") for shard_id in shards})
        start.wait(10)
        for shard_id in shards:
            end_lease(client, keys, shard_id)
        start.wait(10)
        claims = own.claim({shard_id: ClaimRequest(new_token(), "x") for shard_id in shards})
        return {
            shard_id
            for shard_id, claim in claims.items()
            if isinstance(claim, Claim) and claim.outcome is Outcome.CLAIMED
        }

    threads = [Thread(claim_all) for _ in range(4)]
    claimed = [shard_id for thread in threads for shard_id in thread.finish()]  # type: ignore[attr-defined]
    assert sorted(claimed) == list(shards)


def test_a_late_owner_renews_if_nobody_has_claimed_the_shard(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    end_lease(client, keys)
    assert owner.renew() is Outcome.RENEWED
    assert Owner(scripts).claim().outcome is Outcome.HELD
    end_lease(client, keys)
    assert owner.append([1]).outcome is Outcome.APPENDED
    assert Owner(scripts).claim().outcome is Outcome.HELD


def test_either_the_late_owner_renews_or_another_claims(
    redis_server: RedisServer, scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    others = ShardScripts(redis_server.client(), keys, lease=LEASE, keep_events=KEEP_EVENTS)
    seen = set()
    for _ in range(200):
        end_lease(client, keys)
        other = Owner(others, name="other")
        claiming = Thread(other.claim)
        renewed = owner.renew()
        claim = claiming.finish()
        assert isinstance(claim, Claim)
        seen.add((renewed, claim.outcome))
        if claim.outcome is Outcome.CLAIMED:
            assert owner.renew() is Outcome.FENCED
            assert other.renew() is Outcome.RENEWED
            owner, other = other, owner
    assert seen <= {(Outcome.RENEWED, Outcome.HELD), (Outcome.FENCED, Outcome.CLAIMED)}


def test_a_paused_owner_changes_nothing_once_another_has_claimed(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    paused = owner_of_new_shard(scripts, client, keys)
    paused.append([1, 2])
    end_lease(client, keys)
    owner = Owner(scripts, name="two")
    owner.claim()
    owner.append([3])

    assert paused.append([3, 4, 5]).outcome is Outcome.FENCED
    assert paused.renew() is Outcome.FENCED
    assert paused.release() is Outcome.FENCED
    assert paused.claim().outcome is Outcome.HELD
    assert paused.claim(remembering=True).outcome is Outcome.HELD
    epoch = not_none(owner.session).epoch
    assert stream(client, keys) == expected(epoch, "S1", [1, 2, 3])
    assert client.get(keys.shard(0).lease) == owner.token.encode()
    # Also when the new owner's lease has expired.
    end_lease(client, keys)
    assert paused.append([4]).outcome is Outcome.FENCED
    assert paused.renew() is Outcome.FENCED
    assert owner.append([4]).outcome is Outcome.APPENDED


def test_a_released_shard_is_claimed_at_once_and_its_old_token_is_worth_nothing(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    first = owner_of_new_shard(scripts, client, keys)
    first.append([1])
    assert first.release() is Outcome.RELEASED
    assert first.release() is Outcome.FENCED
    assert first.renew() is Outcome.FENCED
    assert first.append([2]).outcome is Outcome.FENCED
    assert not client.exists(keys.shard(0).lease)
    assert Owner(scripts, name="two").claim().session == first.session


def test_an_owner_whose_shard_redis_has_lost_claims_it_before_all_others(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1, 2, 3])
    session, fence = not_none(owner.session), owner.fence
    client.flushall()

    assert owner.renew() is Outcome.LOST
    assert owner.append([4]).outcome is Outcome.LOST
    assert owner.release() is Outcome.LOST
    assert Owner(scripts, name="two").claim().outcome is Outcome.HELD
    claim = owner.claim(remembering=True)
    assert (claim.outcome, claim.session, claim.fence) == (Outcome.CLAIMED, session, fence + 1)
    assert Owner(scripts, name="two").claim().owner == "one"
    owner.append([4])
    assert stream(client, keys) == expected(session.epoch, "S1", [4])


def test_an_owner_who_remembers_claims_without_anybody_having_asked_before(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1])
    client.flushall()
    assert owner.claim(remembering=True).outcome is Outcome.CLAIMED


def test_a_session_that_redis_never_had_gets_an_epoch_after_a_loss(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    session = owner.session  # of which nothing was appended yet
    client.flushall()
    claim = owner.claim(remembering=True)
    assert (claim.outcome, claim.session) == (Outcome.CLAIMED, None)
    owner.session = session
    epoch = owner.append([1]).epoch
    assert epoch > 10**12  # milliseconds since 1970
    assert stream(client, keys) == expected(epoch, "S1", [1])


def test_a_memory_comes_too_late_once_another_has_claimed_the_lost_shard(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    late = owner_of_new_shard(scripts, client, keys)
    late.append([1])
    client.flushall()
    owner = Owner(scripts, name="two")
    owner.claim()
    end_lease(client, keys)
    assert owner.claim().session is None
    assert late.append([2]).outcome is Outcome.FENCED
    assert late.claim(remembering=True).outcome is Outcome.HELD
    # The state of Redis counts, and not the memory, when that owner goes, too.
    owner.begin("S2")
    owner.append([1])
    owner.release()
    assert not_none(late.claim(remembering=True).session).session_id == "S2"


def test_a_memory_older_than_the_stream_is_not_taken(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    paused = owner_of_new_shard(scripts, client, keys)
    paused.append([1])
    end_lease(client, keys)
    owner = Owner(scripts, name="two")
    owner.claim()
    owner.begin("S2")
    owner.append([1, 2])
    client.delete(keys.shard(0).state, keys.shard(0).lease)
    assert paused.claim(remembering=True).outcome is Outcome.HELD
    assert owner.claim(remembering=True).outcome is Outcome.CLAIMED
    owner.append([3])
    assert stream(client, keys)[-1:] == expected(not_none(owner.session).epoch, "S2", [3])


def test_a_memory_behind_the_stream_repeats_nothing(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1, 2])
    before = owner.session
    owner.append([3, 4])
    owner.session = before  # the answer was lost
    client.delete(keys.shard(0).state)
    assert not_none(owner.claim(remembering=True).session).sequence == 4
    owner.session = before
    owner.append([3, 4, 5])
    epoch = not_none(owner.session).epoch
    assert stream(client, keys) == expected(epoch, "S1", [1, 2, 3, 4, 5])


def test_a_lease_keeps_others_out_though_the_state_was_deleted(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owner = owner_of_new_shard(scripts, client, keys)
    owner.append([1])
    client.delete(keys.shard(0).state)
    assert Owner(scripts, name="two").claim().outcome is Outcome.HELD
    assert owner.claim(remembering=True).outcome is Outcome.CLAIMED
