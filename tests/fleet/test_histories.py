"""Random histories of one shard: several owners, lost answers, and a Redis that forgets.

Whatever happens, the stream stays in order, an event has one id whenever and by whomever it is
appended, and what Redis has acknowledged is there until Redis itself loses it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import GAP, Outcome, ShardScripts, new_token
from tests.fleet.owner import LEASE, Owner, end_lease, stream, text_of

_STEPS = 1500

FIRST_EPOCH = 1_800_000_000_000


class History:
    """Discord, with one session at a time, and three workers that want its shard.

    :ivar random: decides what happens.
    :ivar holding: the owners who believe that the shard is theirs.
    :ivar events: how many events each session of Discord's has had; the last one lives.
    :ivar acknowledged: the texts that Redis has said it has, and has not lost since.
    :ivar ids: of each text, since the first time it was in the stream.
    :ivar outcomes: of all batches and claims.
    """

    def __init__(self, client: redis.Redis, keys: Keys, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.keys = keys
        scripts = ShardScripts(client, keys, lease=LEASE, keep_events=100_000)
        self.owners = [Owner(scripts, name=str(number)) for number in range(3)]
        self.holding: set[Owner] = set()
        self.events: dict[str, int] = {}
        self.acknowledged: set[bytes] = set()
        self.ids: dict[bytes, str] = {}
        self.outcomes: set[Outcome] = set()
        self.saved: dict[str, bytes] = {}

    def step(self) -> None:
        """Let something happen, the usual more often than the unusual."""
        owner = self.random.choice(self.owners)
        happenings = {
            lambda: self.append(owner): 40,
            self.receive: 20,
            lambda: self.claim(owner): 6,
            lambda: owner.renew(): 6,
            lambda: end_lease(self.client, self.keys): 6,
            self.save: 4,
            lambda: self.lose_session(owner): 3,
            lambda: self.release(owner): 2,
            self.regress: 2,
            self.lose_everything: 1,
            lambda: self.client.script_flush(): 1,
        }
        (happening,) = self.random.choices([*happenings], [*happenings.values()])
        happening()

    # What workers do

    def claim(self, owner: Owner) -> None:
        if owner in self.holding:
            return
        own = owner.session
        owner.token = new_token()
        claim = owner.claim(remembering=True)
        self.outcomes.add(claim.outcome)
        if claim.outcome is not Outcome.CLAIMED:
            owner.session = None
            return
        self.holding.add(owner)
        if own is not None and (claim.session is None or own.epoch > claim.session.epoch):
            owner.session = own  # which Redis has lost
        elif claim.session is None or claim.session.session_id not in list(self.events)[-1:]:
            self.identify(owner)

    def lose_session(self, owner: Owner) -> None:
        """Discord ends the session of an owner, who begins another."""
        if owner in self.holding:
            self.identify(owner)

    def identify(self, owner: Owner) -> None:
        number = len(self.events)
        self.events[f"S{number}"] = 1
        owner.begin(f"S{number}", FIRST_EPOCH + number)

    def append(self, owner: Owner) -> None:
        """Append some of the events that an owner has received, and forward some of them."""
        before = owner.session
        if owner not in self.holding or before is None:
            return
        new = self.events[before.session_id] - before.sequence
        last = before.sequence + self.random.randint(0, new)
        every = 2 if before.session_id.endswith("5") else 1
        forwarded = [each for each in range(before.sequence + 1, last + 1) if each % every == 0]
        entries = stream(self.client, self.keys)
        answer = owner.append(forwarded, last)
        self.outcomes.add(answer.outcome)
        if self.random.random() < 0.1:  # the answer is lost
            owner.session = before
            return
        if answer.outcome is Outcome.APPENDED:
            self.acknowledged |= {text_of(before.session_id, each) for each in forwarded}
            return
        assert stream(self.client, self.keys) == entries
        if answer.outcome is Outcome.REGRESSED:
            owner.session = before._replace(sequence=answer.sequence)
        else:
            self.holding.remove(owner)  # and remembers its session

    def release(self, owner: Owner) -> None:
        owner.release()
        if owner in self.holding:
            self.holding.remove(owner)
            owner.session = None

    # What befalls them

    def receive(self) -> None:
        for session_id in list(self.events)[-1:]:
            self.events[session_id] += self.random.randint(1, 5)

    def save(self) -> None:
        self.saved = {key: self.dump(key) for key in self.keys.shard(0) if self.dump(key)}

    def dump(self, key: str) -> bytes:
        content: Any = self.client.dump(key)
        return content or b""

    def regress(self) -> None:
        """Redis crashes, and has lost what came after the last save()."""
        self.client.flushall()
        for key, content in self.saved.items():
            self.client.restore(key, 0, content)
        self.acknowledged &= {text for _, text in stream(self.client, self.keys)}

    def lose_everything(self) -> None:
        """Redis crashes without persistence."""
        self.client.flushall()
        self.acknowledged.clear()

    # What always holds

    def check(self) -> None:
        entries = stream(self.client, self.keys)
        assert self.acknowledged <= {text for _, text in entries}
        epoch = ""
        for entry, text in entries:
            before, (epoch, sequence) = epoch, entry.split("-")
            assert int(epoch) >= FIRST_EPOCH
            if text == GAP:
                assert sequence == "0"
            else:
                assert text.endswith(b'"s":%s}' % sequence.encode())
                assert epoch == before or before == ""  # a gap stands between two sessions
                assert self.ids.setdefault(text, entry) == entry


@pytest.mark.parametrize("seed", range(4))
def test_no_history_of_a_shard_breaks_its_promises(
    client: redis.Redis, keys: Keys, seed: int
) -> None:
    history = History(client, keys, seed)
    for _ in range(_STEPS):
        history.step()
        history.check()
    assert history.outcomes == {*Outcome} - {Outcome.RENEWED, Outcome.RELEASED}
