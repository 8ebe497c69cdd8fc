"""Appending events and moving the sequence, against real servers."""

from __future__ import annotations

import pytest
import redis

from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import (
    FIELD,
    Appended,
    Batch,
    FleetSession,
    Outcome,
    ShardScripts,
    ShardView,
)
from tests.fleet.owner import (
    LEASE,
    Owner,
    end_lease,
    expected,
    owner_of_new_shard,
    stream,
    text_of,
)
from tests.redis_server import RedisServer
from tests.support import not_none


@pytest.fixture
def owner(scripts: ShardScripts, client: redis.Redis, keys: Keys) -> Owner:
    return owner_of_new_shard(scripts, client, keys)


def epoch_of(owner: Owner) -> int:
    return not_none(owner.session).epoch


def test_events_stand_in_the_stream_with_epoch_and_sequence(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    seconds, _ = client.time()
    answer = owner.append([1, 2, 3])
    assert answer == (Outcome.APPENDED, answer.epoch, 3)
    assert abs(answer.epoch / 1000 - seconds) < 60
    assert stream(client, keys) == expected(answer.epoch, "S1", [1, 2, 3])


def test_an_append_renews_the_lease(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    lease = keys.shard(0).lease
    client.pexpire(lease, 5000)
    owner.append([1])
    assert client.pttl(lease) > (LEASE - 10) * 1000


def test_events_that_are_not_forwarded_move_only_the_sequence(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    assert owner.append([1, 5, 9], last_sequence=12).sequence == 12
    assert owner.append([], last_sequence=40).sequence == 40
    assert owner.append([41]).sequence == 41
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [1, 5, 9, 41])


def test_a_repeated_batch_changes_nothing(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    owner.append([1, 2])
    before = owner.session
    for _ in range(3):
        owner.session = before
        assert owner.append([3, 4], last_sequence=6).sequence == 6
    # One that overlaps, as a Resume at an older sequence leads to.
    owner.session = before
    assert owner.append([2, 3, 4, 7]).sequence == 7
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [1, 2, 3, 4, 7])


def test_the_first_batch_of_a_session_keeps_its_epoch_when_it_is_repeated(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    before = owner.session
    first = owner.append([1, 2])
    owner.session = before
    assert owner.append([1, 2]) == first
    assert stream(client, keys) == expected(first.epoch, "S1", [1, 2])


def test_a_proposed_epoch_is_taken_if_it_is_higher_than_the_last_one(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    proposed = 1_700_000_000_000  # which is past, and so not what Redis would have made
    for session_id, epoch in (("S1", proposed), ("S2", proposed + 1)):
        owner.begin(session_id, epoch)
        before = owner.session
        assert owner.append([1]).epoch == epoch
        owner.session = before
        assert owner.append([1]).epoch == epoch
    owner.begin("S3", proposed)
    assert owner.append([1]).epoch > proposed + 1


def test_a_first_batch_that_was_lost_with_its_answer_comes_back_with_its_ids(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    size = redis_server.size_of_log()
    owner.begin("S1", 1_800_000_000_000)
    before = owner.session
    owner.append([1, 2])
    seen = stream(client, keys)  # by a consumer
    redis_server.restart_without_tail(redis_server.size_of_log() - size)
    owner.session = before
    owner.append([1, 2])
    assert stream(client, keys) == seen


def test_a_new_session_begins_a_higher_epoch_behind_a_gap(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2])
    first = epoch_of(owner)
    owner.begin("S2")
    owner.append([1, 2])
    second = epoch_of(owner)
    assert second > first
    owner.begin("S3")
    owner.append([], last_sequence=4)
    third = epoch_of(owner)
    owner.append([5])
    assert stream(client, keys) == [
        *expected(first, "S1", [1, 2]),
        *expected(second, "S2", [0, 1, 2]),
        *expected(third, "S3", [0, 5]),
    ]


def test_an_event_with_sequence_zero_is_kept(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    owner.append([0, 1])
    ids = [entry for entry, _ in stream(client, keys)]
    assert ids == [f"{epoch_of(owner)}-0", f"{epoch_of(owner)}-1"]


def test_an_epoch_is_higher_than_the_last_one_if_the_clock_has_jumped_back(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1])
    future = epoch_of(owner) + 10**9  # the clock was 11 days ahead when this one was made
    client.hset(keys.shard(0).state, "epoch", future)
    owner.begin("S2")
    owner.append([1])
    assert epoch_of(owner) == future + 1
    # Likewise if only the stream tells of it.
    client.xadd(keys.shard(0).events, {"p": "{}"}, id=f"{future + 5}-1")
    client.xtrim(keys.shard(0).events, maxlen=0, approximate=False)
    owner.begin("S3")
    owner.append([1])
    assert epoch_of(owner) == future + 6


def test_an_append_that_expects_more_than_redis_has_is_refused(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2, 3])
    session = not_none(owner.session)
    owner.session = session._replace(sequence=10)
    assert owner.append([11]) == (Outcome.REGRESSED, session.epoch, 3)
    owner.session = session
    assert owner.append(range(4, 12)).sequence == 11
    assert stream(client, keys) == expected(session.epoch, "S1", range(1, 12))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_events_that_a_crash_took_are_repeated_with_the_same_ids(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys, share: float
) -> None:
    owner.append(range(1, 11))
    session, size = owner.session, redis_server.size_of_log()
    for last in range(20, 60, 10):
        owner.append(range(last - 9, last + 1))
    whole = stream(client, keys)
    lost = redis_server.size_of_log() - size
    redis_server.restart_without_tail(max(1, round(share * lost)))

    answer = owner.append(range(51, 53))
    assert answer.outcome is Outcome.REGRESSED
    assert answer.epoch == epoch_of(owner)
    assert 10 <= answer.sequence < 50
    assert answer.sequence % 10 == 0  # a batch is lost as a whole
    owner.session = not_none(session)._replace(sequence=answer.sequence)
    owner.append(range(answer.sequence + 1, 53))
    assert stream(client, keys) == [*whole, *expected(answer.epoch, "S1", [51, 52])]


def test_a_new_session_that_a_crash_took_gets_its_old_epoch(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2])
    size = redis_server.size_of_log()
    owner.begin("S2")
    for last in (10, 20):
        owner.append(range(last - 9, last + 1))
    whole = stream(client, keys)
    redis_server.restart_without_tail(redis_server.size_of_log() - size)

    answer = owner.append([21])
    assert answer == (Outcome.REGRESSED, 0, 0)  # of this session Redis knows nothing
    owner.session = not_none(owner.session)._replace(sequence=0)
    owner.append(range(1, 22))
    assert stream(client, keys) == [*whole, *expected(epoch_of(owner), "S2", [21])]


def test_a_new_session_that_a_crash_took_keeps_an_epoch_that_consumers_know(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.begin("S2", epoch=5)
    client.hset(keys.shard(0).state, "known_epoch", 5)  # by a consumer that has read the session
    assert owner.append([1]) == (Outcome.APPENDED, 5, 1)


def test_two_sessions_that_a_crash_took_are_repeated_one_after_the_other(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1])
    size = redis_server.size_of_log()
    sessions = []
    for session_id in ("S2", "S3"):
        owner.begin(session_id)
        owner.append([1, 2])
        sessions.append(not_none(owner.session)._replace(sequence=0))
    whole = stream(client, keys)
    redis_server.restart_without_tail(redis_server.size_of_log() - size)
    for owner.session in sessions:
        owner.append([1, 2])
    assert stream(client, keys) == whole


def test_an_owner_whose_claim_a_crash_took_is_fenced_and_goes_on_after_a_claim(
    redis_server: RedisServer, scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    first = owner_of_new_shard(scripts, client, keys)
    first.append([1, 2])
    end_lease(client, keys)
    size = redis_server.size_of_log()
    second = Owner(scripts, name="two")
    second.claim()
    second.append([3, 4])
    redis_server.restart_without_tail(redis_server.size_of_log() - size)
    fence, session = second.fence, not_none(second.session)

    assert second.append([5]).outcome is Outcome.FENCED
    end_lease(client, keys)
    assert second.claim(remembering=True).fence == fence + 1
    assert not_none(second.session).sequence == 2
    second.append([3, 4, 5])
    assert stream(client, keys) == expected(session.epoch, "S1", [1, 2, 3, 4, 5])


def test_without_persistence_the_owner_goes_on_where_it_was(
    redis_program: str, tmp_path_factory: pytest.TempPathFactory, keys: Keys
) -> None:
    directory = tmp_path_factory.mktemp("forgetful")
    with RedisServer(redis_program, directory, persistent=False) as server:
        client = server.client()
        scripts = ShardScripts(client, keys, lease=LEASE, keep_events=1000)
        owner = owner_of_new_shard(scripts, client, keys)
        owner.append([1, 2])
        epoch = epoch_of(owner)
        server.restart()
        assert owner.append([3]).outcome is Outcome.LOST  # and no error: the scripts are gone, too
        owner.claim(remembering=True)
        owner.append([3])
        assert stream(client, keys) == expected(epoch, "S1", [3])


def test_a_trimmed_stream_goes_on(client: redis.Redis, keys: Keys) -> None:
    scripts = ShardScripts(client, keys, lease=LEASE, keep_events=500)
    owner = owner_of_new_shard(scripts, client, keys)
    for last in range(100, 5001, 100):
        owner.append(range(last - 99, last + 1))
    found = stream(client, keys)
    assert 500 <= len(found) <= 700  # Redis trims whole nodes, of 100 entries
    assert found == expected(epoch_of(owner), "S1", range(5001 - len(found), 5001))
    client.xtrim(keys.shard(0).events, maxlen=0, approximate=False)
    assert owner.append([4999, 5000]).outcome is Outcome.APPENDED  # repeated, and long gone
    owner.append([5001])
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [5001])


def test_a_deleted_stream_goes_on(owner: Owner, client: redis.Redis, keys: Keys) -> None:
    owner.append([1, 2])
    client.delete(keys.shard(0).events)
    owner.append([3])
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [3])


def test_texts_of_a_megabyte_and_of_any_bytes_stay_as_they_are(
    scripts: ShardScripts, client: redis.Redis, keys: Keys, owner: Owner
) -> None:
    texts = [b"x" * 1_000_000, bytes(range(256)), b"", "\N{SNOWMAN}".encode()]
    batch = Batch(owner.token, not_none(owner.session), list(enumerate(texts, 1)), 0)
    scripts.append({0: batch})
    assert [text for _, text in stream(client, keys)] == texts


def test_sequences_of_sixteen_digits_are_not_rounded(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    high = 2**53 - 2
    assert owner.append([high]).sequence == high
    assert owner.append([high + 1]).sequence == high + 1
    assert [entry for entry, _ in stream(client, keys)] == [
        f"{epoch_of(owner)}-{high}",
        f"{epoch_of(owner)}-{high + 1}",
    ]


def test_256_shards_are_served_in_one_pipeline_whatever_redis_has_forgotten(
    redis_server: RedisServer, scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    shards = range(256)
    owners = [Owner(scripts, shard_id) for shard_id in shards]
    for owner in owners:
        owner.claim()
        end_lease(client, keys, owners.index(owner))
        owner.claim()
    session = FleetSession("S1", None, 256)
    texts = [(number, text_of("S1", number)) for number in range(1, 11)]
    for forget in (client.script_flush, redis_server.restart, lambda: None):
        forget()
        answers = scripts.append(
            {each: Batch(owners[each].token, session, texts, 10) for each in shards}
        )
        assert list(answers) == list(shards)
        assert {answer[0] for answer in answers.values()} == {Outcome.APPENDED}  # type: ignore[index]
        client.script_flush()
        renewed = scripts.renew({each: owners[each].token for each in shards})
        assert set(renewed.values()) == {Outcome.RENEWED}
    assert all(client.xlen(keys.shard(each).events) == 10 for each in shards)


def test_a_pipeline_of_no_shards_asks_nothing(scripts: ShardScripts) -> None:
    assert scripts.append({}) == scripts.renew({}) == {}


def test_a_key_that_another_program_has_written_stops_no_other_shard(
    scripts: ShardScripts, client: redis.Redis, keys: Keys
) -> None:
    owners = [owner_of_new_shard(scripts, client, keys, shard_id) for shard_id in range(3)]
    client.set(keys.shard(1).events, "a string")
    session = FleetSession("S1", None, 3)
    answers = scripts.append(
        {each: Batch(owners[each].token, session, [(1, b"{}")], 1) for each in range(3)}
    )
    failed = answers.pop(1)
    assert isinstance(failed, FleetError) and not isinstance(failed, RedisAway)
    assert "another program" in str(failed)
    assert {answer[0] for answer in answers.values()} == {Outcome.APPENDED}  # type: ignore[index]


def test_a_batch_is_refused_as_a_whole_when_memory_has_run_out(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2])
    before = client.hgetall(keys.shard(0).state), stream(client, keys)
    client.config_set("maxmemory", 1)
    for sequences, last in (([3, 4], 4), ([], 9)):
        error = owner.try_append(sequences, last)
        assert isinstance(error, RedisAway)
        assert "maxmemory" in str(error)
    assert owner.renew() is Outcome.RENEWED  # the shard stays with its owner
    client.config_set("maxmemory", 0)
    assert (client.hgetall(keys.shard(0).state), stream(client, keys)) == before
    assert owner.append([3, 4]).outcome is Outcome.APPENDED


def test_a_shard_is_released_though_memory_has_run_out(owner: Owner, client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)
    assert owner.release() is Outcome.RELEASED


def test_a_batch_that_redis_carries_out_after_the_time_to_answer_is_appended_once(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    impatient = redis_server.client(timeout=0.3)
    hasty = Owner(ShardScripts(impatient, keys, lease=LEASE, keep_events=1000))
    hasty.token, hasty.session = owner.token, owner.session
    redis_server.stop_answering()
    for _ in range(3):
        with pytest.raises(RedisAway, match="did not answer in time"):
            hasty.append([1, 2])
    redis_server.answer_again()
    assert owner.append([1, 2, 3]).sequence == 3
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [1, 2, 3])


def test_a_redis_that_has_come_back_is_used_at_the_first_call(
    redis_server: RedisServer, owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1])
    redis_server.restart()  # with connections of before in the pool
    assert owner.append([2]).outcome is Outcome.APPENDED
    redis_server.kill()
    with pytest.raises(RedisAway, match="cannot be reached"):
        owner.append([3])
    redis_server.start()
    assert owner.append([3]).outcome is Outcome.APPENDED
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [1, 2, 3])


def test_a_stream_that_is_ahead_of_the_state_gets_the_rest(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2])
    before = owner.session
    owner.append([3, 4, 5])
    client.hset(keys.shard(0).state, "sequence", 2)  # a half-written script at the end of a log
    owner.session = before
    assert owner.append([3, 4, 5, 6]).sequence == 6
    assert stream(client, keys) == expected(epoch_of(owner), "S1", [1, 2, 3, 4, 5, 6])


def test_a_stream_with_a_later_epoch_than_the_state_loses_no_event(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    owner.append([1, 2])
    first = epoch_of(owner)
    client.xadd(keys.shard(0).events, {FIELD: b"{}"}, id=f"{first + 10**9}-1")
    owner.append([3])
    second = epoch_of(owner)
    assert second > first + 10**9
    owner.append([4])
    assert stream(client, keys) == [
        *expected(first, "S1", [1, 2]),
        (f"{first + 10**9}-1", b"{}"),
        *expected(second, "S1", [3, 4]),
    ]


def test_a_session_with_the_id_of_the_one_before_is_another(
    owner: Owner, client: redis.Redis, keys: Keys
) -> None:
    first = owner.append([1, 2, 3]).epoch
    owner.begin("S1", first + 1)
    batch = owner.session
    assert owner.append([1, 2]) == (Outcome.APPENDED, first + 1, 2)
    owner.session = batch  # the answer was lost
    owner.append([1, 2])
    owner.append([3])
    assert stream(client, keys) == [
        *expected(first, "S1", [1, 2, 3]),
        *expected(first + 1, "S1", [0, 1, 2, 3]),
    ]


@pytest.mark.parametrize("url", ["ws://127.0.0.1/", "ws://127.0.0.1/\udc00"])
def test_a_session_whose_names_are_no_unicode_is_appended_and_not_resumed(
    owner: Owner, scripts: ShardScripts, url: str
) -> None:
    session = FleetSession("S1" if "\udc00" in url else "\ud800", url, 16)
    batch = Batch(owner.token, session, [(1, b"{}")], 1)
    answer = scripts.append({0: batch})[0]
    assert isinstance(answer, Appended) and answer.outcome is Outcome.APPENDED
    assert isinstance(scripts.show([0])[0], ShardView)
    owner.release()
    successor = Owner(scripts)
    assert successor.claim().outcome is Outcome.CLAIMED
    assert successor.session is None
